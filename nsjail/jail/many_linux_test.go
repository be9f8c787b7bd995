//go:build amd64 || arm64

package jail

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const many = 500

// TestManyJailsComeAndGoWithoutATrace has as many jails at once as the mission asks
// for, of each kind in turn, and looks for what they might leave.
func TestManyJailsComeAndGoWithoutATrace(t *testing.T) {
	y := newYard(t)
	ground(t)
	root := tree(t)
	if _, err := initFile(); err != nil { // which stays open, for all jails
		t.Fatal(err)
	}
	before := traces(t, root)
	start := time.Now()
	for i := range many {
		if _, err := y.Create(t.Context(), oneOfMany(root, i), Starter{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d started in %v", many, time.Since(start))
	list, err := y.List()
	if err != nil || len(list) != many {
		t.Fatalf("%d jails are listed: %v", len(list), err)
	}
	for i, j := range list {
		if j.Spec().Name != fmt.Sprint("j", i) || len(j.Processes()) != 1 {
			t.Fatalf("%d is %s, with processes %v", i, j.Spec().Name, j.Processes())
		}
	}
	list[many-1].says(t, "echo hello", "hello")
	start = time.Now()
	for _, j := range list {
		y.remove(j.Spec().Name)
	}
	t.Logf("and removed in %v", time.Since(start))
	for _, j := range list {
		if !gone(j.PID()) {
			t.Errorf("process %d is left", j.PID())
		}
	}
	after := traces(t, root)
	for end := time.Now().Add(5 * time.Second); !maps.Equal(after, before) && time.Now().Before(end); after = traces(t, root) {
		time.Sleep(10 * time.Millisecond) // who waits for the processes may not have had its turn
	}
	for what, was := range before {
		if now := after[what]; now != was {
			t.Errorf("%s: there are\n%s\nand were\n%s", what, now, was)
		}
	}
}

// oneOfMany has its own loopback, addresses of the host, or a link.
func oneOfMany(root string, i int) Spec {
	s := Spec{Name: fmt.Sprint("j", i), Path: root, Persist: true}
	addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 16)
	switch i % 3 {
	case 0:
		s.Network = NoNetwork
	case 1:
		s.Network, s.Addresses = Shared, []Address{{"ground0", addr}}
	case 2:
		s.Network, s.Addresses = VNET, []Address{{"", addr}}
	}
	return s
}

// traces is what a jail with this root may leave on the host, in words. The rules of
// shared jails have no trace but in the jails' cgroups.
func traces(t *testing.T, root string) map[string]string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroups, err := filepath.Glob(filepath.Join(cgroup, fmt.Sprintf("jtt-jails-%d-*/*", os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"interfaces and addresses": fmt.Sprint(network(t)),
		"mounts":                   fmt.Sprint(strings.Count(string(mounts), root)),
		"descriptors":              fmt.Sprint(openFiles(t)),
		"cgroups":                  fmt.Sprint(cgroups),
		"children":                 children(t),
	}
}

// openFiles are what this process has open.
func openFiles(t *testing.T) (list []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil { // else it was that of Glob
			list = append(list, to)
		}
	}
	slices.Sort(list)
	return list
}

// children are the processes that this one has not waited for.
func children(t *testing.T) string {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // a thread may have ended
		for _, pid := range bytes.Fields(text) {
			list = append(list, string(pid))
		}
	}
	slices.Sort(list)
	return fmt.Sprint(list)
}
