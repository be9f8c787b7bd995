package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// An app is what the commands talk to.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	began          bool // the command line made sense so far
}

// A usageError is about the command line, not about what it asks for.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the whole program, and returns its exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.command(args)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			a.say("%v", err)
		}
		return exit.exitStatus()
	}
	var usage usageError
	if errors.As(err, &usage) || !a.began {
		a.say("%s; see %s --help", strings.TrimSpace(err.Error()), cmd.CommandPath())
		return 2
	}
	a.say("%v", err)
	return 1
}

type command struct {
	name string
	make func(*app) *cobra.Command
}

// commands are what jailtap does.
var commands = []command{
	{"capture", (*app).captureCommand}, {"run", (*app).runCommand}, {"serve", (*app).serveCommand}, {"oci", (*app).ociCommand},
	{"filter", (*app).filterCommand}, {"conform", (*app).conformCommand},
	{"jail", (*app).jailCommand}, {"jls", (*app).jlsCommand}, {"jexec", (*app).jexecCommand},
	{"siginfo", (*app).sigInfoCommand}, {"sockstat", (*app).sockstatCommand},
	{"version", (*app).versionCommand}, {"world", (*app).worldCommand},
}

// command is the one that the arguments name, below the program's own; or all of them
// are there if they name none.
func (a *app) command(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "jailtap",
		Short: "Capture the packets of a jail and nothing else",
		Long: `jailtap captures the packets of a jail, a network namespace or a set of addresses,
and nothing else: the kernel holds the capture to them, in front of the filter
that you give.`,
		Example: `  jailtap capture -i br0 --netns web tcp port 80
  jailtap capture -i any -a 10.0.0.5,fd00::5 -w five.pcapng
  jailtap run -a 10.0.0.5 -- tcpdump -ni eth0
  jailtap filter -a 10.0.0.5 --explain udp port 53`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRun:  func(*cobra.Command, []string) { a.began = true },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.RunE = func(*cobra.Command, []string) error {
		var names []string
		for _, c := range commands {
			names = append(names, c.name)
		}
		return usagef("name a command: %s", strings.Join(names, ", "))
	}
	asked := commands
	if i := slices.IndexFunc(commands, func(c command) bool { return len(args) > 0 && c.name == args[0] }); i >= 0 {
		asked = commands[i : i+1]
	}
	for _, c := range asked {
		root.AddCommand(c.make(a))
	}
	return root
}

// say prints one line for people.
func (a *app) say(format string, args ...any) {
	var lines []string
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	fmt.Fprintf(a.stderr, "jailtap: %s\n", strings.Join(lines, "; "))
}
