// Jailtap captures the packets of a jail, a network namespace or a set of
// addresses, and nothing else. The kernel holds the capture to them, with a
// filter in front of the user's own.
//
//	jailtap capture -i br0 --netns web tcp port 80
//	jailtap capture -i any -a 10.0.0.5,fd00::5 -w five.pcapng
//	jailtap filter -a 10.0.0.5 --explain udp port 53
//
// The exit status is 0, or 1 if something failed, or 2 if the command line
// makes no sense. Data goes to standard output and messages to standard error.
package main

import (
	"context"
	"os"
	"path/filepath"

	"jailtap/loader/agent"
)

func main() {
	agent.Child()
	ctx, stop := untilInterrupted(context.Background())
	defer stop()
	os.Exit(run(ctx, commandLine(os.Args), os.Stdin, os.Stdout, os.Stderr))
}

// commandLine is what follows the program's name, or all if that is one of
// FreeBSD's: a link called jls is jailtap jls.
func commandLine(args []string) []string {
	switch name := filepath.Base(args[0]); name {
	case "jail", "jls", "jexec", "sockstat":
		return append([]string{name}, args[1:]...)
	}
	return args[1:]
}
