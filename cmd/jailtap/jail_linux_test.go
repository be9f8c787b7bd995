//go:build amd64 || arm64

package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"jailtap/internal/testutil"
)

// jailHost is a namespace in which jails' commands run, and a root of busybox.
type jailHost struct {
	*testing.T
	ns   *testutil.Namespace
	name string // of its jail: those of others are listed as well
	root string
}

func newJailHost(t *testing.T) *jailHost {
	testutil.NeedRoot(t)
	needTool(t, "busybox")
	h := &jailHost{t, testutil.NewNamespace(t), fmt.Sprint("jtc", os.Getpid()), filepath.Join(t.TempDir(), "root")}
	for _, dir := range []string{"bin", "dev", "proc", "tmp", "var/log"} {
		if err := os.MkdirAll(filepath.Join(h.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	copyProgram(t, busybox, h.root, "bin/busybox")
	for _, name := range []string{"sh", "hostname", "id", "sleep", "grep"} {
		if err := os.Symlink("busybox", filepath.Join(h.root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { h.jailtap("jail", "-R", h.name) })
	return h
}

// jailtap runs a command line in the host's namespace.
func (h *jailHost) jailtap(args ...string) result {
	h.Helper()
	self, err := os.Executable()
	if err != nil {
		h.Fatal(err)
	}
	return startIn(h.T, h.ns, exec.Command(self, args...)).end(0)
}

func (h *jailHost) create() {
	h.Helper()
	h.jailtap("jail", "-c", "name="+h.name, "path="+h.root, "host.hostname=web.example", "vnet", "vnet.bridge=br0",
		"ip4.addr=10.0.0.1/24", "persist").mustSucceed(h)
}

func TestAJailIsMadeListedEnteredAndRemoved(t *testing.T) {
	h := newJailHost(t)
	h.create()
	if out := h.jailtap("jls").mustSucceed(t).stdout; !strings.Contains(out, "10.0.0.1") || !strings.Contains(out, "web.example") || !strings.Contains(out, h.root[:40]) {
		t.Errorf("jls:\n%s", out)
	}
	inside := h.jailtap("jexec", h.name, "/bin/sh", "-c", "hostname; id -u; grep CapEff /proc/self/status; exit 7")
	if inside.status != 7 || !strings.HasPrefix(inside.stdout, "web.example\n0\nCapEff:\t") {
		t.Errorf("jexec: %+v", inside)
	}
	if again := h.jailtap("jail", "-c", "name="+h.name, "path="+h.root, "vnet", "persist"); again.status != 1 || !strings.Contains(again.stderr, h.name) {
		t.Errorf("created twice: %+v", again)
	}
	h.jailtap("jail", "-r", h.name).mustSucceed(t)
	if r := h.jailtap("jexec", h.name, "/bin/id"); r.status != 1 || !strings.Contains(r.stderr, "unknown jail") {
		t.Errorf("jexec after the end: %+v", r)
	}
}

func TestACaptureOfAJailByNameHasItsAddresses(t *testing.T) {
	h := newJailHost(t)
	outside := testutil.NewNamespace(t)
	h.ns.VethTo(t, outside, "tap", "out")
	h.create()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.pcap")
	p := startIn(t, h.ns, exec.Command(self, "capture", "-i", "tap", "-j", h.name, "-w", out))
	p.waitFor(&p.stderr, "scope:")
	outside.Inject(t, "out", testutil.UDP4(noisy, netip.MustParseAddrPort("10.0.0.9:53"), []byte("foreign")), testutil.UDP4(noisy, web, []byte("mine")))
	p.end(syscall.SIGTERM).mustSucceed(t)
	packets := packetsIn(t, out)
	if len(packets) != 1 || !strings.HasSuffix(string(packets[0].Data), "mine") {
		t.Errorf("captured %d packets: %v", len(packets), packets)
	}
}

// A capture of a jail that shares the host's network has the jail's addresses and not
// all of the host's, and follows jail -m.
func TestACaptureOfASharedJailFollowsItsAddresses(t *testing.T) {
	h := newJailHost(t)
	outside := testutil.NewNamespace(t)
	h.ns.VethTo(t, outside, "tap", "out")
	h.ns.AddAddr(t, "tap", "10.0.0.9/24")
	h.jailtap("jail", "-c", "name="+h.name, "path="+h.root, "ip4.addr=tap|10.0.0.1/24", "persist").mustSucceed(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.pcap")
	frames := func(text string) [][]byte {
		var list [][]byte
		for _, to := range []string{"10.0.0.9:53", "10.0.0.1:53", "10.0.0.2:53"} {
			list = append(list, testutil.UDP4(noisy, netip.MustParseAddrPort(to), []byte(text+to)))
		}
		return list
	}
	p := startIn(t, h.ns, exec.Command(self, "capture", "-j", h.name, "-w", out))
	p.waitFor(&p.stderr, "listening on tap")
	outside.Inject(t, "out", frames("before ")...)
	h.jailtap("jail", "-m", "name="+h.name, "ip4.addr=tap|10.0.0.2/24").mustSucceed(t)
	p.waitFor(&p.stderr, "10.0.0.2, policy")
	outside.Inject(t, "out", frames("after ")...)
	h.jailtap("jail", "-m", "name="+h.name, "host.hostname=new").mustSucceed(t) // it keeps the addresses
	if list := h.jailtap("jls").mustSucceed(t).stdout; !strings.Contains(list, "10.0.0.2") || !strings.Contains(list, "new") {
		t.Errorf("jls:\n%s", list)
	}
	h.jailtap("jail", "-r", h.name).mustSucceed(t)
	if r := p.end(0); r.status != 1 || !strings.Contains(r.stderr, "jail "+h.name+" has ended") {
		t.Errorf("after the jail's end: %+v", r)
	}
	var texts []string
	for _, packet := range packetsIn(t, out) {
		if i := strings.Index(string(packet.Data), " 10.0.0."); i > 0 {
			texts = append(texts, string(packet.Data[42:]))
		}
	}
	if got := strings.Join(texts, ", "); got != "before 10.0.0.1:53, after 10.0.0.2:53" {
		t.Errorf("captured %s", got)
	}
}
