package loader

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

var bothEngines = []Engine{CBPF, EBPF}

// eachEngine runs a test with both.
func eachEngine(t *testing.T, test func(t *testing.T, e Engine)) {
	for _, e := range bothEngines {
		t.Run(string(e), func(t *testing.T) { test(t, e) })
	}
}

// A lab is a wire between two namespaces: frames are sent in one and captured
// in the other. Both ends are named eth0.
type lab struct{ near, far *testutil.Namespace }

func newLab(t testing.TB) lab {
	t.Helper()
	l := lab{testutil.NewNamespace(t), testutil.NewNamespace(t)}
	l.near.VethTo(t, l.far, "eth0", "eth0")
	return l
}

// open opens a tap at the near end.
func (l lab) open(t *testing.T, cfg Config) *Tap {
	t.Helper()
	cfg.Namespace = l.near
	if cfg.Interface == "" {
		cfg.Interface = "eth0"
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = 8 << 20 // 64 blocks: frames that are sent slowly take a whole one each
	}
	cfg.Immediate = true
	tap, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

// send puts frames on the wire at the far end.
func (l lab) send(t *testing.T, frames ...[]byte) {
	t.Helper()
	l.far.Inject(t, "eth0", frames...)
}

// udp is a frame between two hosts of 10.0.0.0/24.
func udp(src, dst byte, payload string) []byte {
	return testutil.UDP4(station(src), station(dst), []byte(payload))
}

func station(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 1000)
}

// scopeOf is the scope with some hosts of 10.0.0.0/24.
func scopeOf(hosts ...byte) bpf.Scope {
	var s bpf.Scope
	for _, h := range hosts {
		s.Addrs = append(s.Addrs, netip.PrefixFrom(station(h).Addr(), 32))
	}
	return s
}

// marker is in every scope, since it is a broadcast.
var marker = testutil.UDP4(station(99), netip.MustParseAddrPort("255.255.255.255:9"), []byte("the end"))

// A seen is a copy of a Packet.
type seen struct {
	data     []byte
	len      int
	time     time.Time
	outgoing bool
}

var errEnough = errors.New("enough")

// until reads until a frame has payload at its end, which it leaves out.
func until(t *testing.T, tap *Tap, payload string) (all []seen) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := tap.Read(ctx, func(p *Packet) error {
		if bytes.HasSuffix(p.Data, []byte(payload)) {
			return errEnough
		}
		all = append(all, seen{slices.Clone(p.Data), p.Len, p.Time, p.Outgoing})
		return nil
	})
	if err != errEnough {
		stats, _ := tap.Stats()
		t.Fatalf("Read: %v, and after %d frames none with %q; %+v", err, len(all), payload, stats)
	}
	return all
}

// exchange sends frames and the marker, and reads up to the marker. It reads
// while it sends: a slow sender would fill the ring's blocks with a frame each.
func (l lab) exchange(t *testing.T, tap *Tap, frames ...[]byte) []seen {
	t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- l.far.Namespace.Inject("eth0", append(slices.Clone(frames), marker)...) }()
	got := until(t, tap, "the end")
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	return got
}

// check compares frames with those wanted.
func check(t *testing.T, got []seen, want ...[]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("got %d frames, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i].data, want[i]) || got[i].len != len(want[i]) {
			t.Errorf("frame %d: got %x (%d on the wire), want %x", i, got[i].data, got[i].len, want[i])
		}
	}
}

// filter makes Config.Filter out of a program.
func program(p bpf.Program) func(bpf.LinkType) (bpf.Program, error) {
	return func(bpf.LinkType) (bpf.Program, error) { return p, nil }
}

// byteIs is a program that takes n bytes of frames that have the value at off.
func byteIs(off, value, n uint32) bpf.Program {
	return bpf.Program{
		{Op: 0x30, K: off},          // ldb [off]
		{Op: 0x15, Jf: 1, K: value}, // jeq #value
		{Op: 0x06, K: n},            // ret #n
		{Op: 0x06, K: 0},            // ret #0
	}
}

// arrived waits until n frames have come in since the tap was opened.
func arrived(t *testing.T, tap *Tap, n uint64) {
	t.Helper()
	for range 1000 {
		s, err := tap.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.Received >= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d frames did not come in", n)
}
