//go:build !(linux && (amd64 || arm64))

package main

import "github.com/spf13/cobra"

// jailAgentCommand is not there: no jails are made here.
func (*app) jailAgentCommand() *cobra.Command { return &cobra.Command{Use: "agent", Hidden: true} }
