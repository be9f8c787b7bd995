//go:build amd64 || arm64

package agent

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that the command gets when the agent gets them.
var forwarded = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH}

// ends reports whether a signal is a wish that the agent end.
func ends(sig os.Signal) bool {
	return slices.Contains([]os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}, sig)
}

// fromTerminal reports whether a signal is one that the command has from the
// terminal already. The command is of the agent's process group, so that
// pipelines and job control work as if there were no agent; what the terminal
// sends goes to the whole group.
func fromTerminal(sig os.Signal) bool {
	if !slices.Contains([]os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGWINCH}, sig) {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}
