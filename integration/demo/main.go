//go:build linux

// Demo shows that scoped captures hold what is a jail's own, all of it, and
// nothing else. In network namespaces of its own it builds a bridge with four
// hosts, sends real traffic among them, and captures it on the bridge: once
// unscoped, as the reference, and as each of three jails with each engine and
// through the hub, all at once. Then it holds every frame of every capture against bpf.Scope.Match.
//
// It ends with 1 if a jail's capture has a foreign frame or lacks an own one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// longest is how long the demo may take before it is stopped.
const longest = time.Minute

func main() {
	// Captures are killed when the thread that started them ends, which this
	// one does with the demo; see capture.go.
	runtime.LockOSThread()

	jailtap := flag.String("jailtap", "bin/jailtap", "the program to show")
	dir := flag.String("o", "demo-captures", "`directory` for the captures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	results, err := run(ctx, *jailtap, *dir)
	if err == nil {
		report(os.Stdout, results, *dir)
		err = failure(results)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run leaves the captures in dir, and nothing else.
func run(ctx context.Context, jailtap, dir string) ([]result, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root, to make network namespaces and to capture; try: sudo make demo")
	}
	jailtap, err := filepath.Abs(jailtap)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()

	net, err := buildNetwork()
	defer net.remove()
	if err != nil {
		return nil, err
	}
	captures := net.captures(jailtap, dir)
	if err := record(ctx, net, captures); err != nil {
		if ctx.Err() != nil { // whatever else that made fail
			err = stopped(ctx)
		}
		return nil, err
	}
	return check(captures)
}

// record runs the captures over the traffic. Only what is between the two
// markers counts, so that it does not matter when exactly each of them starts
// and ends.
func record(ctx context.Context, net *network, captures []*capture) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, c := range captures {
		if err := c.start(ctx); err != nil {
			return err
		}
		defer c.kill()
	}
	if err := waitForCaptures(ctx, captures); err != nil {
		return err
	}
	if err := net.mark(ctx, startMarker); err != nil {
		return err
	}
	if err := net.sendTraffic(ctx); err != nil {
		return fmt.Errorf("traffic: %w", err)
	}
	if err := net.mark(ctx, endMarker); err != nil {
		return err
	}
	for _, c := range captures {
		if err := c.stop(); err != nil {
			return err
		}
	}
	return nil
}

// check compares each jail's capture with the first one, the reference.
func check(captures []*capture) ([]result, error) {
	reference, err := captures[0].read()
	if err != nil {
		return nil, err
	}
	results := []result{{capture: captures[0], frames: reference}}
	for _, c := range captures[1:] {
		frames, err := c.read()
		if err != nil {
			return nil, err
		}
		results = append(results, result{c, frames, compare(c.host.scope(), reference, frames)})
	}
	return results, nil
}
