package loader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

// A counted sender sends frames with numbers as fast as it can, from one CPU, each of which
// is in scope for another reason than the one before.
type countedSender struct {
	cpu  int
	from *testutil.Namespace
}

// countedFrame is number n of a sender.
func countedFrame(sender byte, n uint32) []byte {
	number := binary.BigEndian.AppendUint32([]byte{sender}, n)
	if n%3 == 0 { // of another, for all
		return testutil.UDP4(station(99), netip.MustParseAddrPort("255.255.255.255:9"), number)
	}
	return testutil.UDP4(station(1+byte(n%2)), station(2-byte(n%2)), number)
}

func (s countedSender) run(id byte, ended <-chan struct{}) (n uint32, err error) {
	err = s.from.Do(func() error {
		var here unix.CPUSet
		here.Set(s.cpu)
		if err := unix.SchedSetaffinity(0, &here); err != nil { // of a thread that ends with this
			return err
		}
		fd, to, err := wire()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for ; ; n++ {
			select {
			case <-ended:
				return nil
			default:
			}
			if err := unix.Sendto(fd, countedFrame(id, n), 0, to); err != nil {
				return err
			}
		}
	})
	return n, err
}

// someCPUs are two of those that the test may use; the same one if there is no other.
func someCPUs(t *testing.T) (first, last int) {
	t.Helper()
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	first = -1
	for cpu := range 8 * len(allowed) * int(unsafe.Sizeof(allowed[0])) {
		if allowed.IsSet(cpu) {
			if last = cpu; first < 0 {
				first = cpu
			}
		}
	}
	return first, last
}

// move has a capture that is being read moved into a hub, which another one makes.
func (l lab) move(t *testing.T, tap *Tap) {
	t.Helper()
	l.share(t, Config{Scope: scopeOf(200), RingBytes: 1})
	inTheHub(t, tap)
}

func inTheHub(t *testing.T, tap *Tap) {
	t.Helper()
	for range 1000 {
		if tap.Reason() == inHub {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it has not moved into the hub: %s", tap.Reason())
}

// While a capture moves frames come in on several CPUs, both ways: each comes once.
func TestACaptureThatMovesIntoAHubMissesNothingAndSeesNothingTwice(t *testing.T) {
	for _, changes := range []bool{false, true} {
		t.Run(fmt.Sprint("scope changes ", changes), func(t *testing.T) {
			for range 10 {
				l := newLab(t)
				tap := l.open(t, Config{Scope: scopeOf(1), ScopeChanges: changes, RingBytes: 64 << 20})
				if tap.shared != nil {
					t.Fatal(tap.Reason())
				}
				first, last := someCPUs(t)
				senders := []countedSender{{first, l.far}, {last, l.near}}
				ended := make(chan struct{})
				sent := make([]uint32, len(senders))
				var sending, reading errgroup.Group
				for i, s := range senders {
					sending.Go(func() (err error) { sent[i], err = s.run(byte(i), ended); return err })
				}
				ctx, end := context.WithCancel(t.Context())
				next := make([]uint32, len(senders))
				reading.Go(func() error {
					return tap.Read(ctx, func(p *Packet) error {
						sender, n := p.Data[42], binary.BigEndian.Uint32(p.Data[43:])
						if want := next[sender]; n != want {
							return fmt.Errorf("frame %d of sender %d, want %d", n, sender, want)
						}
						next[sender]++
						return nil
					})
				})
				l.move(t, tap)
				time.Sleep(20 * time.Millisecond)
				close(ended)
				err := sending.Wait()
				end()
				if err := errors.Join(err, reading.Wait()); err != nil {
					t.Fatalf("%v: of %d and %d", err, sent[0], sent[1])
				}
				all := uint64(sent[0]) + uint64(sent[1])
				if next[0] != sent[0] || next[1] != sent[1] || sent[0] < 50 || sent[1] < 50 {
					t.Errorf("it has seen %d, of %d, and many", next, sent)
				}
				s, err := tap.Stats()
				if err != nil || s.Received != all || s.Dropped != 0 {
					t.Errorf("counts %+v, %v; want %d received", s, err, all)
				}
				if changes && (*s.InScope != all || *s.Matched != all || *s.Seen < all) {
					t.Errorf("seen %d, in scope %d, matched %d, want %d", *s.Seen, *s.InScope, *s.Matched, all)
				}
				if !changes && (s.Seen != nil || s.InScope != nil || s.Matched != nil) {
					t.Errorf("it counts %+v, which it has not from the beginning", s)
				}
				tap.Close()
				if t.Failed() {
					return
				}
			}
		})
	}
}

// reads reads a tap until the end of the test, or its own.
func reads(t *testing.T, tap *Tap, handle func(*Packet) error) {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := tap.Read(ctx, handle); err != nil && !errors.Is(err, os.ErrClosed) && err != errEnough {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { end(); <-ended })
}

// allPacketSockets is how many sockets an interface shows all frames, in a namespace.
func allPacketSockets(t *testing.T, ns *testutil.Namespace) (n int) {
	t.Helper()
	var text []byte
	err := ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/packet") // proc_pid_net(5)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 5 && f[3] == "0003" && f[5] == "1" { // ETH_P_ALL, running
			n++
		}
	}
	return n
}

func TestTheFirstCapturesMoveIntoTheHubOfTheThird(t *testing.T) {
	l := newLab(t)
	var taps []*Tap
	frames := make(chan seen, 100)
	for host := byte(1); host <= 2; host++ {
		tap := l.open(t, Config{Scope: scopeOf(host), Filter: program(byteIs(23, unix.IPPROTO_UDP, 44))})
		taps = append(taps, tap)
		reads(t, tap, func(p *Packet) error { frames <- seen{len: p.Len, data: append([]byte{host}, p.Data...)}; return nil })
	}
	if n := allPacketSockets(t, l.near); n != 2 {
		t.Fatalf("%d sockets, want 2", n)
	}
	third := l.open(t, Config{Scope: scopeOf(3)})
	for _, tap := range taps {
		inTheHub(t, tap)
		if tap.Engine() != EBPF {
			t.Errorf("engine %s", tap.Engine())
		}
	}
	for range 1000 {
		if allPacketSockets(t, l.near) == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n := allPacketSockets(t, l.near); n != 1 {
		t.Errorf("%d sockets, want the hub's", n)
	}
	third.Close() // the hub stays
	l.send(t, udp(1, 9, "a"), udp(3, 9, "foreign"), testutil.TCP4(station(1), station(2), testutil.SYN, nil), udp(9, 2, "b"))
	got := map[byte][]byte{}
	for range taps {
		select {
		case f := <-frames:
			got[f.data[0]] = f.data[1:]
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing but %x", got)
		}
	}
	if want := (map[byte][]byte{1: udp(1, 9, "a"), 2: udp(9, 2, "b")}); !maps.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// What has been captured before is read, and a scope holds whenever it is set.
func TestTheScopeOfACaptureThatMovesChanges(t *testing.T) {
	for _, e := range []struct {
		name    string
		changes bool
	}{{"classic", false}, {"with maps", true}} {
		t.Run(e.name, func(t *testing.T) {
			l := newLab(t)
			tap := l.open(t, Config{Scope: scopeOf(1), ScopeChanges: e.changes})
			if err := tap.SetScope(scopeOf(2)); err != nil {
				t.Fatal(err)
			}
			l.send(t, udp(1, 9, "foreign"), udp(2, 9, "before"))
			arrived(t, tap, 1)
			l.share(t, Config{Scope: scopeOf(200)})
			check(t, l.exchange(t, tap, udp(2, 9, "between")), udp(2, 9, "before"), udp(2, 9, "between"))
			reading, stop := context.WithTimeout(t.Context(), 10*time.Second)
			go func() { inTheHub(t, tap); stop() }()
			if err := tap.Read(reading, func(p *Packet) error { return fmt.Errorf("a frame: %x", p.Data) }); err != nil {
				t.Fatal(err)
			}
			check(t, l.exchange(t, tap, udp(1, 9, "foreign"), udp(2, 9, "in the hub")), udp(2, 9, "in the hub"))
			if err := tap.SetScope(scopeOf(3)); err != nil {
				t.Fatal(err)
			}
			check(t, l.exchange(t, tap, udp(2, 9, "old"), udp(3, 9, "new")), udp(3, 9, "new"))
			if err := tap.SetScope(bpf.Scope{Addrs: scopeOf(4).Addrs, Policy: bpf.ClassicHost}); err != nil {
				t.Fatal(err)
			}
			l.send(t, marker, udp(3, 9, "old"), udp(4, 9, "the last"))
			check(t, until(t, tap, "the last"))
		})
	}
}

// A capture is closed at any moment of its move, and others stay what they were.
func TestACaptureIsClosedWhileItMoves(t *testing.T) {
	l := newLab(t)
	open := openDescriptors(t)
	for n := range 40 {
		tap := l.open(t, Config{Scope: scopeOf(1), RingBytes: 1})
		reads(t, tap, func(*Packet) error { return nil })
		hub := l.share(t, Config{Scope: scopeOf(2)})
		time.Sleep(time.Duration(n) * 200 * time.Microsecond)
		tap.Close()
		check(t, l.exchange(t, hub, udp(1, 3, "foreign"), udp(2, 3, "own")), udp(2, 3, "own"))
		hub.Close()
	}
	for range 1000 { // what was left to be closed behind the captures
		if openDescriptors(t) <= open {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors are open, before %d", openDescriptors(t), open)
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// If there is no hub any more when a capture would move it stays, misses nothing, and moves
// into the next one.
func TestACaptureThatFindsNoHubStaysWhereItIs(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	l.share(t, Config{Scope: scopeOf(2)}).Close()
	for range 3 {
		check(t, l.exchange(t, tap, udp(1, 3, "own"), udp(2, 3, "foreign")), udp(1, 3, "own"))
	}
	if tap.Engine() != CBPF {
		t.Errorf("engine %s: %s", tap.Engine(), tap.Reason())
	}
	reads(t, tap, func(*Packet) error { return nil })
	l.move(t, tap)
}

// A capture that cannot be in a hub, since its program looks at metadata, stays for good.
func TestACaptureThatTheHubCannotServeStaysAndSaysWhy(t *testing.T) {
	l := newLab(t)
	random := bpf.Program{{Op: 0x20, K: 0xfffff038}, {Op: 0x06, K: 100}}
	tap := l.open(t, Config{Scope: scopeOf(1), Filter: program(random)})
	const want = "looks at metadata"
	for range 2 {
		l.share(t, Config{Scope: scopeOf(2)})
		for tries := 0; tries == 0 || tries < 500 && !strings.Contains(tap.Reason(), want); tries++ { // it tries to move meanwhile
			check(t, l.exchange(t, tap, udp(1, 3, "own"), udp(2, 3, "foreign")), udp(1, 3, "own"))
		}
	}
	if strings.Count(tap.Reason(), want) != 1 || tap.Engine() != CBPF {
		t.Errorf("engine %s: %s; want %q in it once", tap.Engine(), tap.Reason(), want)
	}
}

func TestAnInterfaceThatGoesDownEndsACaptureThatHasMoved(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	ended := make(chan error, 1)
	go func() { ended <- tap.Read(t.Context(), func(*Packet) error { return nil }) }()
	l.move(t, tap)
	onLink(t, l.near, "eth0", netlink.LinkSetDown)
	select {
	case err := <-ended:
		if !errors.Is(err, ErrInterfaceDown) {
			t.Errorf("%v, want %v", err, ErrInterfaceDown)
		}
	case <-time.After(10 * time.Second):
		t.Error("it reads on")
	}
}
