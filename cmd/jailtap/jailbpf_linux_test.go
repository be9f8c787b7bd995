//go:build amd64 || arm64

package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"jailtap/internal/testutil"
	"jailtap/nsjail/jail"
)

// newCaptureHost is a host with two interfaces, and tcpdump in its jail's root.
func newCaptureHost(t *testing.T) (h *jailHost, outside *testutil.Namespace) {
	t.Helper()
	testutil.NeedRoot(t)
	needTool(t, "tcpdump")
	h = &jailHost{t, testutil.NewNamespace(t), fmt.Sprint("jtb", os.Getpid()), filepath.Join(t.TempDir(), "root")}
	outside = testutil.NewNamespace(t)
	h.ns.VethTo(t, outside, "tap", "out")
	h.ns.AddAddr(t, "tap", "10.0.0.9/24")
	h.jailtap("world", "build", "--bin", "tcpdump", "--bin", "sh", "--bin", "sleep", "--bin", "cat", "--format", "dir", "-o", h.root).mustSucceed(t)
	t.Cleanup(func() { h.jailtap("jail", "-R", h.name) })
	return h, outside
}

// startInside runs a command in the jail.
func (h *jailHost) startInside(args ...string) *process {
	h.Helper()
	self, err := os.Executable()
	if err != nil {
		h.Fatal(err)
	}
	return startIn(h.T, h.ns, exec.Command(self, append([]string{"jexec", h.name}, args...)...))
}

func to(addr, text string) []byte {
	return testutil.UDP4(noisy, netip.MustParseAddrPort(addr+":53"), []byte(text))
}

// The 2008 patch: tcpdump in a jail, unmodified, on the host's interface.
func TestTcpdumpInASharedJailSeesItsPacketsAndNoOthers(t *testing.T) {
	h, outside := newCaptureHost(t)
	h.jailtap("jail", "-c", "name="+h.name, "path="+h.root, "ip4.addr=tap|10.0.0.1/24", "allow.bpf", "persist").mustSucceed(t)
	p := h.startInside("tcpdump", "-Z", "root", "-l", "-n", "-A", "-c", "2", "-i", "tap", "udp")
	p.waitFor(&p.stderr, "listening on tap")
	outside.Inject(t, "out", to("10.0.0.9", "the host's"), to("10.0.0.1", "before"))
	p.waitFor(&p.stdout, "before")
	h.jailtap("jail", "-m", "name="+h.name, "ip4.addr=tap|10.0.0.2/24").mustSucceed(t)
	eventually(t, "a packet of the new address", func() bool {
		outside.Inject(t, "out", to("10.0.0.1", "nobody's"), to("10.0.0.9", "the host's"), to("10.0.0.2", "after"))
		return strings.Contains(p.stdout.String(), "after")
	})
	r := p.end(0).mustSucceed(t)
	if strings.Contains(r.stdout, "host's") || strings.Contains(r.stdout, "nobody's") {
		t.Errorf("tcpdump saw:\n%s", r.stdout)
	}
	h.endsWithTheJail()
}

// endsWithTheJail checks that a command's agent does.
func (h *jailHost) endsWithTheJail() {
	h.Helper()
	p := h.startInside("sleep", "1000")
	eventually(h, "an agent", func() bool { return len(h.agents()) == 1 })
	h.jailtap("jail", "-r", h.name).mustSucceed(h)
	p.end(0)
	eventually(h, "the end of the agent", func() bool { return len(h.agents()) == 0 })
	if text, err := os.ReadFile(jail.System.AgentLog(h.name)); !os.IsNotExist(err) {
		h.Errorf("the agent's log: %v: %s", err, text)
	}
}

// agents are the processes that answer for the jail's commands.
func (h *jailHost) agents() (list []string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lines {
		text, _ := os.ReadFile(name) // it may have ended
		if strings.HasSuffix(string(text), "\x00jail\x00agent\x00"+h.name+"\x00") {
			list = append(list, name)
		}
	}
	return list
}

func TestTcpdumpInAVnetJailSeesItsPacketsAndNoOthers(t *testing.T) {
	h, outside := newCaptureHost(t)
	if err := h.ns.Bridge("br0", "tap"); err != nil {
		t.Fatal(err)
	}
	h.jailtap("jail", "-c", "name="+h.name, "path="+h.root, "vnet", "ip4.addr=br0|10.0.0.1/24", "allow.bpf", "persist").mustSucceed(t)
	p := h.startInside("tcpdump", "-Z", "root", "-l", "-n", "-A", "-c", "1", "-i", "eth0", "udp")
	p.waitFor(&p.stderr, "listening on eth0")
	eventually(t, "a packet of the jail", func() bool {
		outside.Inject(t, "out", to("10.0.0.9", "the host's"), to("10.0.0.1", "mine")) // the bridge knows neither MAC
		return strings.Contains(p.stdout.String(), "mine")
	})
	if r := p.end(0).mustSucceed(t); strings.Contains(r.stdout, "host's") {
		t.Errorf("tcpdump saw:\n%s", r.stdout)
	}
	h.endsWithTheJail()
}

func TestWithoutAllowBPFThereAreNoPacketSockets(t *testing.T) {
	h, _ := newCaptureHost(t)
	h.jailtap("jail", "-c", "name="+h.name, "path="+h.root, "ip4.addr=tap|10.0.0.1/24", "persist").mustSucceed(t)
	if r := h.startInside("tcpdump", "-Z", "root", "-c", "1", "-i", "tap").end(0); r.status != 1 || !strings.Contains(r.stderr, "Operation not permitted") {
		t.Errorf("%+v", r)
	}
}

// exec.start runs with an agent as well, and what it leaves behind keeps it.
func TestAServiceOfAJailMayCapture(t *testing.T) {
	h, outside := newCaptureHost(t)
	h.jailtap("jail", "-c", "name="+h.name, "path="+h.root, "ip4.addr=tap|10.0.0.1/24", "allow.bpf", "persist",
		"exec.start=tcpdump -Z root -l -n -A -i tap udp >/tmp/seen 2>/tmp/said & :").mustSucceed(t)
	in := func(name, words string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(filepath.Join(h.root, "tmp", name))
			return strings.Contains(string(text), words)
		}
	}
	eventually(t, "tcpdump to listen", in("said", "listening on tap"))
	outside.Inject(t, "out", to("10.0.0.9", "the host's"), to("10.0.0.1", "mine"))
	eventually(t, "a packet of the jail", in("seen", "mine"))
	if in("seen", "host's")() {
		t.Error("tcpdump saw the host's packet")
	}
	h.jailtap("jail", "-r", h.name).mustSucceed(t)
	eventually(t, "the end of the agent", func() bool { return len(h.agents()) == 0 })
}
