//go:build amd64 || arm64 || riscv64

package loader

import (
	"bytes"
	"errors"
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
	say(t, "foreign")
	if err := tap.SetScope(local); err != nil {
		t.Fatal(err)
	}
	say(t, "own")
	found := errors.New("found")
	err = tap.Read(t.Context(), func(p *Packet) error { // there may be others
		switch {
		case bytes.HasSuffix(p.Data, []byte("foreign")):
			t.Error("a frame out of scope is seen")
		case bytes.HasSuffix(p.Data, []byte("own")):
			return found
		}
		return nil
	})
	if err != found {
		t.Error(err)
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

func TestTheKernelRunsPrograms(t *testing.T) {
	testutil.NeedRoot(t)
	n, err := OpenNative()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	frame := bytes.Repeat([]byte{2}, 60)
	for want, p := range map[int]bpf.Program{0: returns(0), 20: returns(20), 60: returns(bpf.KeepAll)} {
		if got, err := n.Run(p, frame); got != want || err != nil {
			t.Errorf("%d, %v; want %d", got, err, want)
		}
	}
	if _, err := n.Run(make(bpf.Program, 513), frame); !errors.Is(err, unix.EINVAL) {
		t.Errorf("513 instructions: %v", err)
	}
	if _, err := n.Run(returns(1), frame[:13]); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("13 bytes: %v", err)
	}
}
