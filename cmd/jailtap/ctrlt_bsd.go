//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
)

// ctrlTs tells of each SIGINFO, which the terminal sends at Ctrl-T, until stop is
// called. Whose terminal it is the terminal knows.
func ctrlTs(io.Reader) (typed <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINFO)
	return c, func() { signal.Stop(c) }
}
