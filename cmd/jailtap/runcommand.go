package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"jailtap/loader/agent"
	"jailtap/nsjail"
	"jailtap/nsjail/jail"
)

// runFlags are those of the command run.
type runFlags struct {
	scope   scopeFlags
	inNetns string
	user    string
}

func (a *app) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run tcpdump, or another command, that sees the packets in scope only",
		Long: `run executes a command without any capability. When the command, or a process that
it starts, asks for a packet socket it gets one that shows the packets in scope and
nothing else, and that does not send. The command's own filters work within the scope;
that it asks for promiscuous mode succeeds and does nothing. While it runs the scope
follows the addresses of the jail.

The command runs as the user who called sudo(8), or as the caller if there was no
sudo, unless --user names another. As user 0 it has no capability either, but owns
root's files, and calls that change a user or an owner succeed and do nothing
(tcpdump insists): a command that is not trusted wants --user.

32-bit programs do not run, and SO_ATTACH_BPF is refused (EOPNOTSUPP), as is the
socket type SOCK_PACKET.

The exit status is that of the command; 128 and the signal's number if a signal
ended it; 126 if it cannot be executed, 127 if it is not found.`,
		Example: `  jailtap run -a 10.0.0.5 -- tcpdump -ni eth0 -w five.pcap
  jailtap run --netns web --user nobody -- tcpdump -ni br0 tcp port 80
  jailtap run --pid 4711 --in-netns router -- tshark -i any`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("say what to run: jailtap run -a ADDRESS -- COMMAND [ARG...]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := f.scope.open(cmd.Flags())
			if err != nil {
				return err
			}
			defer source.Close()
			return f.run(cmd.Context(), a, source, args)
		},
	}
	f.scope.register(cmd)
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&f.inNetns, "in-netns", "", "the command runs in network namespace `NAME|PATH`, not the caller's")
	fs.StringVar(&f.user, "user", "", "the command runs as `USER[:GROUP]`, names or numbers")
	return cmd
}

func (f *runFlags) run(ctx context.Context, a *app, source *scopeSource, argv []string) error {
	cfg := agent.Config{}
	var err error
	if cfg.User, err = parseUser(f.user); err != nil {
		return err
	}
	if f.inNetns != "" {
		jail, err := nsjail.OpenNamespace(f.inNetns)
		if err != nil {
			return err
		}
		defer jail.Close()
		cfg.Namespace = jail
	}
	// The command hears of signals; when it ends so does this.
	status, err := runAgent(context.WithoutCancel(ctx), a, cfg, source, argv)
	if err == nil && status == 0 {
		return nil
	}
	return &exitError{status, err}
}

// An exitError is the exit status of a command that was run, or that could not be.
type exitError struct {
	status int
	err    error // nil: the command has said it all
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }

func (e *exitError) Unwrap() error { return e.err }

// exitStatus is as that of env(1) and of shells where the command was not executed.
func (e *exitError) exitStatus() int {
	_, notExecuted := errors.AsType[*agent.ExecError](e.err)
	_, notInJail := errors.AsType[*jail.ExecError](e.err)
	switch {
	case e.err == nil:
		return e.status
	case !notExecuted && !notInJail:
		return max(1, e.status)
	case errors.Is(e.err, fs.ErrNotExist), errors.Is(e.err, exec.ErrNotFound):
		return 127
	}
	return 126
}

// parseUser reads USER[:GROUP]; "" is who called sudo, or nil for the caller.
func parseUser(text string) (*agent.User, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	if text == "" {
		// sudo(8) sets these for root; anybody else could as well.
		if name = os.Getenv("SUDO_UID"); os.Geteuid() != 0 || name == "" || name == "0" {
			return nil, nil
		}
		group, hasGroup = os.LookupEnv("SUDO_GID")
	}
	u, err := lookUpUser(name)
	if err != nil {
		return nil, err
	}
	if hasGroup {
		if u.GID, err = lookUpGroup(group); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// lookUpUser finds a user with its groups. A number need not be anybody's: its
// group is the same number then.
func lookUpUser(name string) (*agent.User, error) {
	known, err := user.Lookup(name)
	if err != nil {
		known, err = user.LookupId(name)
	}
	if err != nil {
		id, err := strconv.ParseUint(name, 10, 31)
		if err != nil {
			return nil, usagef("unknown user %q", name)
		}
		return &agent.User{UID: uint32(id), GID: uint32(id)}, nil
	}
	u := &agent.User{}
	if u.UID, err = number(known.Uid); err != nil {
		return nil, err
	}
	if u.GID, err = number(known.Gid); err != nil {
		return nil, err
	}
	groups, err := known.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %s: %w", name, err)
	}
	for _, g := range groups {
		id, err := number(g)
		if err != nil {
			return nil, err
		}
		u.Groups = append(u.Groups, id)
	}
	return u, nil
}

func lookUpGroup(name string) (uint32, error) {
	if known, err := user.LookupGroup(name); err == nil {
		return number(known.Gid)
	}
	id, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return 0, usagef("unknown group %q", name)
	}
	return uint32(id), nil
}

func number(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	return uint32(n), err
}
