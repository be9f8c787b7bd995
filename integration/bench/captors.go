//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"

	"golang.org/x/sync/errgroup"

	"jailtap/bpf"
	"jailtap/internal/netlab"
	"jailtap/loader"
)

// captorsMost is how many captures one process has, that may not open any number of
// files.
const captorsMost = 250

// captorsVariable is set in processes that are captors, to their captorsConfig.
const captorsVariable = "JAILTAP_BENCH_CAPTORS"

// A captorsConfig says which captures to open: for members First to End-1.
type captorsConfig struct {
	Namespace, Interface string
	First, End           int
	Hub                  loader.Hub
}

// captors are captures that another process has open.
type captors struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

func startCaptors(cfg captorsConfig) (*captors, error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	c := &captors{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), captorsVariable+"="+string(text))
	c.cmd.Stderr = os.Stderr
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("captures of another process: %w", errors.Join(err, c.close()))
	}
	return c, nil
}

// close ends the captures and waits for it.
func (c *captors) close() error { return errors.Join(c.stdin.Close(), c.cmd.Wait()) }

// runCaptors opens captures, says so by a line, and closes them when stdin ends. The
// very first of them is read, and those that move into a hub when they are.
func runCaptors(config string) error {
	var cfg captorsConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	taps := make([]*loader.Tap, cfg.End-cfg.First)
	defer throttled(len(taps), func(i int) error {
		if taps[i] == nil {
			return nil
		}
		return taps[i].Close()
	})
	var g errgroup.Group
	g.SetLimit(16) // each waits for the kernel most of the time
	for i := range taps {
		g.Go(func() (err error) {
			taps[i], err = cfg.open(cfg.First + i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, tap := range taps {
		if mayMove := cfg.Hub == loader.HubAuto && tap.Engine() != loader.EBPF; mayMove || cfg.First+i == 0 {
			go tap.ReadBatches(context.Background(), func(loader.Packets) error { return nil })
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func (cfg captorsConfig) open(i int) (*loader.Tap, error) {
	tap, err := loader.Open(loader.Config{
		Interface: cfg.Interface, Namespace: &netlab.Namespace{Name: cfg.Namespace, Path: cfg.Namespace},
		Scope:     bpf.Scope{Addrs: []netip.Prefix{netip.PrefixFrom(member(i), 32)}, Policy: bpf.ClassicHost},
		RingBytes: crowdRing, Hub: cfg.Hub,
	})
	if err == nil && cfg.Hub == loader.HubAlways && tap.Engine() != loader.EBPF {
		return nil, errors.Join(errors.New(tap.Reason()), tap.Close())
	}
	return tap, err
}
