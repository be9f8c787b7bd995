package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"jailtap/nsjail"
)

func (a *app) sigInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "siginfo PID",
		Short: "Tell of a process what FreeBSD's terminals tell at Ctrl-T",
		Long: `siginfo prints FreeBSD's line for a process: the load, its name, what it waits for in
FreeBSD's words, the time since its start, its user and system time, the CPU that it
uses at the moment, and its memory. What another user's process waits for needs
CAP_SYS_PTRACE.`,
		Example: `  jailtap siginfo 2324
  jailtap siginfo $(pgrep -n sshd)`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			pid, err := strconv.Atoi(args[0])
			if err != nil || pid <= 0 {
				return usagef("bad process %q: want its number", args[0])
			}
			line, err := nsjail.SigInfo(pid)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, line)
			return err
		},
	}
}
