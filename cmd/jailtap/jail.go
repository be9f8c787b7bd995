package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"jailtap/compat/jailconf"
	"jailtap/nsjail/jail"
)

// jailFlags are those of the command jail.
type jailFlags struct {
	create, modify, remove, removeOnly bool
	quiet, printJID                    bool
	file                               string
	fileGiven                          bool
}

func (a *app) jailCommand() *cobra.Command {
	f := &jailFlags{}
	cmd := &cobra.Command{
		Use:   "jail -c|-m|-r [-f FILE] [NAME... | PARAM=VALUE... [command=COMMAND...]]",
		Short: "Create, modify and remove jails, as FreeBSD's jail(8) does",
		Long: `jail creates, modifies or removes jails. Their parameters are those of a jail.conf or
an rc.conf, in which NAMEs choose jails, and none or * all of them; or those of the
command line. jail check tells what becomes of each parameter on Linux. With
world=PROFILE a path that is not there is made, as by jailtap world build.

Where creating a jail fails, all is undone. What commands of exec.start print goes to
var/log/console.log in the jail, or exec.consolelog; exec.timeout is 120 seconds unless
it is set, and 0 is none. What takes long is told of every 10 seconds.

A jail without persist ends with its last process. If that was the command, the exit
status is that of the command. If standard input is a terminal, the command has one of
the jail's own, as with jexec -t.

-r runs the commands of the stop that the jail was created with, also if the
configuration has changed or is gone, and is no error if there is no such jail.`,
		Example: `  jailtap jail -c -f /etc/jail.conf www
  jailtap jail -c name=web path=/jails/web ip4.addr='br0|10.1.1.1/24' command=/bin/sh
  jailtap jail -r web
  jailtap jail -rc -f rc.conf`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.fileGiven = cmd.Flags().Changed("file")
			return f.run(cmd.Context(), a, args)
		},
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&f.create, "create", "c", false, "create jails; with -r remove them first")
	fs.BoolVarP(&f.modify, "modify", "m", false, "modify a jail; with -c create it if there is none")
	fs.BoolVarP(&f.remove, "remove", "r", false, "remove jails")
	fs.BoolVarP(&f.removeOnly, "remove-only", "R", false, "remove jails without the commands of their stop")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "do not tell what was done")
	fs.BoolVarP(&f.printJID, "print-jid", "i", false, "print the number of each jail that was created")
	fs.StringVarP(&f.file, "file", "f", "/etc/jail.conf", "read `FILE|-`, a jail.conf or an rc.conf")
	cmd.AddCommand(a.jailCheckCommand(), a.jailAgentCommand())
	return cmd
}

func (f *jailFlags) run(ctx context.Context, a *app, args []string) error {
	doing := f.create || f.modify || f.remove || f.removeOnly
	switch {
	case !doing && len(args) > 0 && strings.Contains(args[0], "="):
		f.create = true // as FreeBSD's
	case !doing:
		return usagef("say what to do: -c creates, -m modifies, -r removes; or name a command: check")
	case f.remove && f.removeOnly || f.modify && (f.remove || f.removeOnly):
		return usagef("-m, -r and -R exclude one another")
	}
	if err := jail.System.Repair(); err != nil {
		a.say("warning: %v", err)
	}
	if len(args) > 0 && strings.Contains(args[0], "=") {
		return f.fromCommandLine(ctx, a, args)
	}
	if !f.create && !f.modify && !f.fileGiven {
		return f.removeNamed(ctx, a, args)
	}
	return f.fromFile(ctx, a, args)
}

// fromCommandLine is for one jail with its parameters.
func (f *jailFlags) fromCommandLine(ctx context.Context, a *app, args []string) error {
	j, err := jailconf.ParseArgs(args)
	if err != nil {
		return usageError{err}
	}
	if j.Name == "" {
		return usagef("the jail has no name: want name=NAME")
	}
	config := &jailconf.Config{Jails: []jailconf.Jail{j}}
	return f.each(ctx, a, config, j)
}

// fromFile is for jails of a configuration, each after those that it depends on,
// or, where they are only removed, before.
func (f *jailFlags) fromFile(ctx context.Context, a *app, names []string) error {
	config, err := a.readJailConfig(f.file)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		names = config.List
	}
	jails, err := config.Order(names)
	if err != nil {
		return err
	}
	if f.remove || f.removeOnly {
		backwards := slices.Clone(jails)
		slices.Reverse(backwards)
		for _, j := range backwards {
			if len(names) > 0 && !slices.Contains(names, "*") && !slices.Contains(names, j.Name) {
				continue // another one may depend on it, too
			}
			if err := f.removeOne(ctx, a, j.Name); err != nil {
				return err
			}
		}
	}
	if !f.create && !f.modify {
		return nil
	}
	for _, j := range jails {
		if _, err := jail.System.Find(j.Name); err == nil && !slices.Contains(names, j.Name) && !f.modify {
			continue // it runs already, and was not asked for by name
		}
		f.remove, f.removeOnly = false, false
		if err := f.each(ctx, a, config, j); err != nil {
			return err
		}
	}
	return nil
}

// each does with one jail what the flags say.
func (f *jailFlags) each(ctx context.Context, a *app, config *jailconf.Config, j jailconf.Jail) error {
	if f.remove || f.removeOnly {
		if err := f.removeOne(ctx, a, j.Name); err != nil || !f.create {
			return err
		}
	}
	if f.modify {
		_, err := jail.System.Find(j.Name)
		if err == nil {
			return f.modifyOne(a, config, j)
		}
		if !f.create {
			return err
		}
	}
	spec, err := jailSpec(config, j)
	if err != nil {
		return err
	}
	if err := f.makeRoot(ctx, a, j); err != nil {
		return err
	}
	return f.createOne(ctx, a, spec)
}

func (f *jailFlags) createOne(ctx context.Context, a *app, spec jail.Spec) error {
	created, err := jail.System.Create(ctx, spec, a.starter())
	if failed, ok := errors.AsType[*jail.StatusError](err); ok && failed.Param == "command" {
		return &exitError{failed.Status, nil}
	}
	if err != nil {
		return err
	}
	switch {
	case f.printJID:
		fmt.Fprintln(a.stdout, created.Spec().JID)
	case !f.quiet && len(spec.Commands.Command) == 0:
		fmt.Fprintf(a.stdout, "%s: created\n", spec.Name)
	}
	return nil
}

// removeNamed removes jails by their names or numbers; * is all.
func (f *jailFlags) removeNamed(ctx context.Context, a *app, names []string) error {
	if len(names) == 0 {
		return usagef("say which jails to remove: NAME..., or '*' for all")
	}
	if slices.Contains(names, "*") {
		jails, err := jail.System.List()
		if err != nil {
			return err
		}
		names = nil
		for _, j := range slices.Backward(jails) {
			names = append(names, j.Spec().Name)
		}
	}
	for _, name := range names {
		if err := f.removeOne(ctx, a, name); err != nil {
			return err
		}
	}
	return nil
}

func (f *jailFlags) removeOne(ctx context.Context, a *app, name string) error {
	j, err := jail.System.Find(name)
	if err == nil {
		name = j.Spec().Name
	} else if !errors.Is(err, jail.ErrUnknown) {
		return err
	}
	s := a.starter()
	s.OnlyRemove = f.removeOnly
	if err := jail.System.Remove(ctx, name, s); err != nil {
		return err
	}
	if !f.quiet && j != nil {
		fmt.Fprintf(a.stdout, "%s: removed\n", name)
	}
	return nil
}

// starter connects a jail's commands with this one's descriptors, or its command with
// a terminal of the jail's own if somebody is there to type.
func (a *app) starter() jail.Starter {
	s := jail.Starter{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Out: a.stderr}
	if hasForeground(os.Stdin) {
		s.Run = onTerminal
	}
	return s
}
