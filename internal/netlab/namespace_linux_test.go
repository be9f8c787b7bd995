package netlab_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"jailtap/internal/netlab"
	"jailtap/internal/testutil"
)

func TestNamespacesOfDeadProcessesAreRemoved(t *testing.T) {
	testutil.NeedRoot(t)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	stale, err := netlab.New(fmt.Sprintf("jts-%d-x", gone.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	living, err := netlab.New(netlab.Name("jts", "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer living.Remove()

	netlab.RemoveStale("jts")
	if _, err := os.Stat(stale.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", stale.Path, err)
	}
	if _, err := os.Stat(living.Path); err != nil {
		t.Errorf("the namespace of a living process is gone: %v", err)
	}
}

func TestDoRunsInTheNamespaceAndNowhereElse(t *testing.T) {
	testutil.NeedRoot(t)
	n, err := netlab.New(netlab.Name("jts", "do"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Remove()
	before, _ := os.Readlink("/proc/thread-self/ns/net")

	var inside string
	n.Do(func() error {
		inside, _ = os.Readlink("/proc/thread-self/ns/net")
		links, err := net.Interfaces()
		if err != nil || len(links) != 1 {
			t.Errorf("interfaces %v (%v), want lo alone", links, err)
		}
		return err
	})
	func() {
		defer func() {
			if r := recover(); r != "boom" {
				t.Errorf("recovered %v, want the panic of the function", r)
			}
		}()
		n.Do(func() error { panic("boom") })
	}()
	runtime.Gosched()
	if after, _ := os.Readlink("/proc/thread-self/ns/net"); after != before || inside == before {
		t.Errorf("before in %s, inside in %s, after in %s", before, inside, after)
	}
	if err := (&netlab.Namespace{Name: "x", Path: "/run/netns/jts-none"}).Do(func() error { return nil }); err == nil {
		t.Error("no error for a namespace that does not exist")
	}
}

// The main thread does not end, and /proc/self is about it.
func TestTheMainThreadStaysAtHome(t *testing.T) {
	testutil.NeedRoot(t)
	before, _ := os.Readlink("/proc/self/ns/net")
	n, err := netlab.New(netlab.Name("jts", "main"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Remove()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if err := n.Do(func() error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != before {
		t.Errorf("the main thread is in %s, and was in %s: %v", now, before, err)
	}
}
