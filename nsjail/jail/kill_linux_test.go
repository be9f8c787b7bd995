//go:build amd64 || arm64

package jail

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests in a network namespace of their own, and lets the test
// binary be a command that makes and removes a jail, to be killed.
func TestMain(m *testing.M) {
	if text := os.Getenv("JAIL_TEST_VICTIM"); text != "" {
		victim(text)
	}
	if os.Geteuid() != 0 || os.Getenv("JAIL_TEST_INSIDE") != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "JAIL_TEST_INSIDE=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	cmd.Run()
	os.Exit(status(cmd.ProcessState, nil))
}

// An order is what a victim does.
type order struct {
	Registry Registry
	Spec     Spec
}

// victim makes a jail and removes it, again and again, until it is killed.
func victim(text string) {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	for {
		if _, err := o.Registry.Create(context.Background(), o.Spec, Starter{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := o.Registry.Remove(context.Background(), o.Spec.Name, Starter{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func TestWhatAKilledCommandLeavesTheNextOneRemoves(t *testing.T) {
	for _, kind := range []Network{VNET, Shared} {
		t.Run(string(kind), func(t *testing.T) { killed(t, kind) })
	}
}

func killed(t *testing.T, kind Network) {
	y := newYard(t)
	spec := vnetJail(t, "a", "10.9.0.1/24", "fd09::1/64")
	spec.Persist = true
	if spec.Network = kind; kind == Shared {
		ground(t)
		for i := range spec.Addresses {
			spec.Addresses[i].Interface = "ground0"
		}
	}
	before := network(t)
	spec.Commands = Commands{Start: []string{"(sleep 1000 &) ; true"}, Stop: []string{"true"}, StopTimeout: time.Second}
	text, err := json.Marshal(order{y.Registry, spec})
	if err != nil {
		t.Fatal(err)
	}
	phases := map[phase]int{}
	for i := range 50 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"JAIL_TEST_VICTIM=" + string(text)}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(15+rand.IntN(60)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if rec, err := y.load("a"); err == nil {
			phases[rec.Phase]++
		} else {
			phases["none"]++
		}
		nextCommand(y, i, spec)
		if list, err := y.List(); err != nil || len(list) != 0 {
			t.Fatalf("%v %v", list, err)
		}
		if now := network(t); !slices.Equal(now, before) {
			t.Fatalf("the host has %v, and had %v", now, before)
		}
	}
	t.Log(phases)
}

// A command may be killed before the jail's first record is in its place.
func TestARecordThatWasBeingWrittenIsTakenAway(t *testing.T) {
	next := map[string]func(y *yard) error{
		"remove": func(y *yard) error { return y.Remove(t.Context(), "a", Starter{}) },
		"repair": func(y *yard) error { return y.Repair() },
	}
	for name, command := range next {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			if err := y.prepare(); err != nil {
				t.Fatal(err)
			}
			for _, left := range []string{"a.json.new", "a.lock"} {
				if err := os.WriteFile(filepath.Join(y.Dir, left), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := command(y); err != nil {
				t.Error(err)
			}
		})
	}
}

// nextCommand takes turns: what comes next may be any.
func nextCommand(y *yard, i int, spec Spec) {
	y.Helper()
	var err error
	switch i % 3 {
	case 0:
		err = y.Remove(y.Context(), "a", Starter{})
	case 1:
		if err = y.Repair(); err == nil { // a jail that was finished stays
			err = y.Remove(y.Context(), "a", Starter{})
		}
	case 2:
		if j, _ := y.Find("a"); j == nil || j.rec.Phase != running {
			_, err = y.Create(y.Context(), spec, Starter{})
		}
		if err == nil {
			err = y.Remove(y.Context(), "a", Starter{})
		}
	}
	if err != nil {
		y.Fatal(err)
	}
}
