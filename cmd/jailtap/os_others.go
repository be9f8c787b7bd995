//go:build !unix

package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
)

func untilInterrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt)
}

func askedForCounts() (asked <-chan os.Signal, stop func()) { return nil, func() {} }

func system() string { return runtime.GOOS + " " + runtime.GOARCH }
