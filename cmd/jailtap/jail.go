package main

import "github.com/spf13/cobra"

func (a *app) jailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "jail",
		Short:   "Read configurations of FreeBSD jails",
		Example: `  jailtap jail check -f /etc/jail.conf`,
		RunE: func(*cobra.Command, []string) error {
			return usagef("name a command: check")
		},
	}
	cmd.AddCommand(a.jailCheckCommand())
	return cmd
}
