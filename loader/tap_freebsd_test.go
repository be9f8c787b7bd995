//go:build amd64 || arm64 || riscv64

package loader

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

// say sends a datagram to the discard port of loopback.
func say(t *testing.T, payload string) {
	t.Helper()
	c, err := net.Dial("udp4", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func TestACaptureOnLoopbackSeesItsScopeOnly(t *testing.T) {
	testutil.NeedRoot(t)
	local := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	foreign := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
	tap, err := Open(Config{Interface: "lo0", Scope: foreign, ScopeChanges: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if tap.LinkType() != bpf.Null || tap.Ifindex() == 0 {
		t.Errorf("link type %v, interface %d", tap.LinkType(), tap.Ifindex())
	}
	say(t, "not to be seen")
	if err := tap.SetScope(local); err != nil {
		t.Fatal(err)
	}
	say(t, "to be seen")
	first := ""
	tap.Read(t.Context(), func(p *Packet) error {
		first = string(p.Data[min(len(p.Data), 32):]) // family, IPv4, UDP
		return errClosed
	})
	if first != "to be seen" {
		t.Errorf("got %q", first)
	}
	if s, err := tap.Stats(); err != nil || *s.Seen < 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestALockedDeviceRefusesAnotherProgram(t *testing.T) {
	testutil.NeedRoot(t)
	tap, err := Open(Config{Interface: "lo0", Scope: bpf.Scope{}})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	for _, r := range []request{setFilter, setFilterNoFlush, setWriteFilter} {
		if err := tap.dev.program(r, returns(bpf.KeepAll)); err != unix.EPERM {
			t.Errorf("%s: %v", r, err)
		}
	}
	if _, err := unix.Write(tap.dev.(*devBPF).fd, bytes.Repeat([]byte{2}, 60)); err != unix.EBADF {
		t.Errorf("write: %v", err)
	}
}
