//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// untilInterrupted ends the context at SIGINT, SIGTERM or, unless nohup(1) says
// otherwise, SIGHUP. A second one kills.
//
// SIGPIPE and SIGXFSZ are ignored, so that writing to a closed pipe and beyond
// a file size limit are errors that can be told (signal(7)).
func untilInterrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ)
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, signals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// askedForCounts tells of each SIGUSR1 until stop is called.
func askedForCounts() (asked <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	return c, func() { signal.Stop(c) }
}

// system is what uname(1) calls -s -r -m.
func system() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown system"
	}
	return strings.Join([]string{
		unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]),
	}, " ")
}
