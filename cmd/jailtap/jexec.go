package main

import (
	"os"

	"github.com/spf13/cobra"

	"jailtap/nsjail/jail"
)

// jexecFlags are those of jexec(8).
type jexecFlags struct {
	login, tty         bool
	hostUser, jailUser string
}

func (a *app) jexecCommand() *cobra.Command {
	f := &jexecFlags{}
	cmd := &cobra.Command{
		Use:   "jexec [-lt] [-u USER | -U USER] JAIL [COMMAND [ARG...]]",
		Short: "Run a command in a jail, as FreeBSD's jexec(8) does",
		Long: `jexec runs a command in a jail, or else the shell of the user. It has what the jail's
own processes have, and no more. The exit status is that of the command; 128 and the
signal's number if a signal ended it; 126 if it cannot be executed, 127 if it is not
found.

With -t the command has a terminal of the jail's own (/dev/pts/N), which is relayed to
that on standard input; without, it has the caller's terminal itself, and an untrusted
one should not. Redirected descriptors stay as they are. Ctrl-T shows FreeBSD's line
about the process in the foreground, with the number that it has on the host; it goes
to the command if that reads single keys (stty -icanon), or after Ctrl-V.
A signal sent to jexec goes to the command, which loses the terminal one second later.
The caller's terminal is restored at the end; after SIGKILL, stty sane restores it.`,
		Example: `  jailtap jexec web ps aux
  jailtap jexec -l -U www web
  jailtap jexec -t web sh
  jailtap jexec 3 sh -c 'echo $PATH'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("say in which jail: jailtap jexec JAIL COMMAND [ARG...]")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return f.run(args[0], args[1:]) },
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.BoolVarP(&f.login, "login", "l", false, "in a clean environment, but for TERM, and in the user's directory")
	fs.BoolVarP(&f.tty, "tty", "t", false, "on a terminal of the jail's own; standard input has to be one")
	fs.StringVarP(&f.hostUser, "user", "u", "", "as a `USER` that the host knows")
	fs.StringVarP(&f.jailUser, "jail-user", "U", "", "as a `USER` that the jail knows")
	return cmd
}

func (f *jexecFlags) run(name string, argv []string) error {
	if f.hostUser != "" && f.jailUser != "" {
		return usagef("-u and -U exclude one another")
	}
	j, err := jail.System.Find(name)
	if err != nil {
		return err
	}
	command, err := f.command(j, argv)
	if err != nil {
		return err
	}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	start := inPlace
	if f.tty {
		start = onTerminal
	}
	if status, err := start(j, command); status != 0 {
		return &exitError{status, err}
	}
	return nil
}

// inPlace runs a command on the descriptors that it has.
func inPlace(j *jail.Jail, c jail.Command) (status int, err error) {
	process, err := j.Start(c)
	if err != nil {
		return 1, err
	}
	return jail.Wait(process), nil
}

// command is what runs as whom.
func (f *jexecFlags) command(j *jail.Jail, argv []string) (jail.Command, error) {
	c := jail.Command{Argv: argv, Env: os.Environ()}
	user, home, shell := "root", "/", "/bin/sh"
	var err error
	switch {
	case f.hostUser != "":
		known, err := lookUpUser(f.hostUser)
		if err != nil {
			return c, err
		}
		user, c.User = f.hostUser, jail.User{UID: known.UID, GID: known.GID, Groups: known.Groups}
	case f.jailUser != "" || f.login || len(argv) == 0:
		if f.jailUser != "" {
			user = f.jailUser
		}
		if c.User, home, shell, err = j.LookupUser(user); err != nil {
			return c, err
		}
	}
	if len(argv) == 0 {
		c.Argv = []string{shell}
	}
	if f.login {
		c.Env, c.Dir = jail.CleanEnv(user, home, shell), home
	}
	return c, nil
}
