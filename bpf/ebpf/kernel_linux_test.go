package ebpf_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
)

// A loaded program, as a tc program (frames start at the link level, as on a
// SOCK_RAW socket) or as a socket filter (test runs start it at the network
// level, as on a SOCK_DGRAM socket).
type loaded struct {
	*cilium.Collection
}

func load(t testing.TB, spec *cilium.CollectionSpec, kind cilium.ProgramType) loaded {
	t.Helper()
	spec.Programs[ebpf.Program].Type = kind
	c, err := cilium.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { unload(c) })
	return loaded{c}
}

var unloaded atomic.Int64

// unload frees a program, not too many at once: kernels have been seen to
// choke on a thousand in one RCU grace period.
func unload(c *cilium.Collection) {
	c.Close()
	if unloaded.Add(1)%64 == 0 {
		time.Sleep(50 * time.Millisecond)
	}
}

func (l loaded) run(t testing.TB, frame []byte) uint32 {
	t.Helper()
	verdict, ok := l.tryRun(t, frame)
	if !ok {
		t.Fatalf("no test run on %x", frame)
	}
	return verdict
}

// tryRun is run, if the kernel takes the frame: not if an IP header in it is cut.
func (l loaded) tryRun(t testing.TB, frame []byte) (verdict uint32, ok bool) {
	t.Helper()
	verdict, err := l.Programs[ebpf.Program].Run(&cilium.RunOptions{Data: frame})
	if err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatalf("run on %x: %v", frame, err)
	}
	return verdict, err == nil
}

// A wire is a datagram socket pair with a socket filter at one end: what is
// sent arrives, or does not, before send returns, and may be of any length.
type wire struct{ in, out int }

func (l loaded) wire(t testing.TB) wire {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	if err := unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_ATTACH_BPF, l.Programs[ebpf.Program].FD()); err != nil {
		t.Fatal(err)
	}
	return wire{fds[0], fds[1]}
}

// carries reports whether the filter lets frame pass.
func (w wire) carries(t testing.TB, frame []byte) bool {
	t.Helper()
	if err := unix.Sendto(w.in, frame, 0, nil); err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	_, _, err := unix.Recvfrom(w.out, make([]byte, 1), unix.MSG_TRUNC)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return err == nil
}

// put fills the maps as the loader does.
func (l loaded) put(t testing.TB, addrs []netip.Prefix, c ebpf.Capacity) {
	t.Helper()
	put := func(name string, key, value any) {
		if err := l.Maps[name].Put(key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range addrs {
		hosts, prefixes := ebpf.Hosts6, ebpf.Prefixes6
		if p.Addr().Is4() {
			hosts, prefixes = ebpf.Hosts4, ebpf.Prefixes4
		}
		if p.IsSingleIP() {
			put(hosts, p.Addr().AsSlice(), byte(0))
		} else {
			put(prefixes, append(binary.NativeEndian.AppendUint32(nil, uint32(p.Bits())), p.Addr().AsSlice()...), byte(0))
		}
	}
	values, flags := ebpf.Values(c, addrs)
	for name, value := range values {
		put(name, uint32(0), value)
	}
	put(ebpf.Flags, uint32(0), flags)
}

// counters are those of all CPUs.
func (l loaded) counters(t testing.TB) (sum ebpf.Counters) {
	t.Helper()
	var each []ebpf.Counters
	if err := l.Maps[ebpf.Counts].Lookup(uint32(0), &each); err != nil {
		t.Fatal(err)
	}
	for _, c := range each {
		sum.Seen += c.Seen
		sum.InScope += c.InScope
		sum.Matched += c.Matched
	}
	return sum
}

// loadScope makes the program of a scope, with its addresses in place.
func loadScope(t testing.TB, v bpf.View, s bpf.Scope, user bpf.Program, kind cilium.ProgramType) loaded {
	t.Helper()
	capacity := ebpf.CapacityFor(s.Addrs)
	spec, err := ebpf.Spec(v, s, user, capacity)
	if err != nil {
		t.Fatal(err)
	}
	l := load(t, spec, kind)
	l.put(t, s.Addrs, capacity)
	return l
}
