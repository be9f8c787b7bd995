package loader

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	cilium "github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/netlab"
	"jailtap/internal/testutil"
)

// share opens a tap that must share the hub.
func (l lab) share(t *testing.T, cfg Config) *Tap {
	t.Helper()
	cfg.Hub = HubAlways
	tap := l.open(t, cfg)
	if tap.shared == nil {
		t.Fatalf("it does not share the hub: %s", tap.Reason())
	}
	return tap
}

// a6 is a host of 2001:db8::/64.
func a6(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: n}), 1000)
}

// hubFrames are one of each kind that is decided in another way.
func hubFrames() [][]byte {
	group4, group6 := netip.MustParseAddrPort("224.0.0.251:5353"), netip.MustParseAddrPort("[ff02::fb]:5353")
	mac1, mac2 := testutil.MACOf(station(1).Addr()), testutil.MACOf(station(2).Addr())
	return [][]byte{
		udp(1, 2, "own, sent"), udp(2, 1, "own, received"), udp(2, 3, "of two others"), udp(4, 3, "foreign"), udp(1, 1, "to itself"),
		testutil.UDP4(station(1), group4, []byte("own multicast")), testutil.UDP4(station(4), group4, []byte("foreign multicast")),
		testutil.UDP4(station(4), netip.MustParseAddrPort("255.255.255.255:9"), []byte("broadcast")),
		testutil.To(udp(4, 3, "unicast addresses, group MAC"), testutil.MAC{1, 2, 3, 4, 5, 6}),
		testutil.To(udp(4, 3, "unicast addresses, broadcast MAC"), testutil.BroadcastMAC),
		testutil.To(testutil.UDP4(station(4), group4, []byte("group address, unicast MAC")), mac1),
		testutil.UDP6(a6(1), a6(2), []byte("own")), testutil.UDP6(a6(3), a6(1), []byte("own")), testutil.UDP6(a6(3), a6(4), []byte("foreign")),
		testutil.UDP6(a6(4), group6, []byte("multicast")), testutil.NeighborSolicit(a6(4).Addr(), a6(1).Addr()),
		testutil.ARP(testutil.ARPRequest, station(4).Addr(), station(3).Addr(), testutil.BroadcastMAC),
		testutil.ARP(testutil.ARPRequest, station(4).Addr(), station(3).Addr(), testutil.MAC{1, 2, 3, 4, 5, 6}),
		testutil.ARP(testutil.ARPReply, station(1).Addr(), station(4).Addr(), mac2), testutil.ARP(testutil.ARPReply, station(4).Addr(), station(1).Addr(), mac2),
		testutil.ARP(testutil.ARPReply, station(4).Addr(), station(3).Addr(), mac2),
		testutil.Tagged(udp(1, 2, "another network"), unix.ETH_P_8021Q, 7), testutil.Tagged(udp(1, 2, "another network"), unix.ETH_P_8021AD, 7),
		testutil.Tagged(testutil.Tagged(udp(1, 2, "two tags"), unix.ETH_P_8021Q, 7), unix.ETH_P_8021AD, 8),
		testutil.Ethernet(mac1, mac2, 0x88cc, make([]byte, 46)), testutil.Ethernet(mac1, testutil.BroadcastMAC, 0x88cc, make([]byte, 46)),
		udp(1, 2, "cut")[:40], udp(1, 2, "cut")[:33], udp(1, 2, "cut")[:20], testutil.UDP6(a6(1), a6(2), nil)[:50],
		testutil.ARP(testutil.ARPRequest, station(1).Addr(), station(3).Addr(), testutil.BroadcastMAC)[:40],
		udp(1, 2, strings.Repeat("long", 300)), udp(1, 2, "the last"),
	}
}

// A capture in a hub and one with its own socket, that are asked for the same, see the
// same and count the same, frame by frame, both ways.
func TestACaptureInAHubSeesWhatOneWithItsOwnSocketSees(t *testing.T) {
	networks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31"), netip.PrefixFrom(a6(1).Addr(), 128)}
	pktType := bpf.Program{{Op: 0x28, K: 0xfffff004}, {Op: 0x15, Jt: 1, K: unix.PACKET_OUTGOING}, {Op: 0x06, K: 70}, {Op: 0x06, K: 50}}
	tests := []struct {
		name string
		cfg  Config
	}{
		{"full", Config{}},
		{"classic", Config{Scope: bpf.Scope{Policy: bpf.Classic}}},
		{"classic-host", Config{Scope: bpf.Scope{Policy: bpf.ClassicHost}}},
		{"received", Config{Direction: In}},
		{"sent", Config{Direction: Out}},
		{"snaplen", Config{Snaplen: 48}},
		{"a program", Config{Filter: program(byteIs(23, unix.IPPROTO_UDP, 1000))}},
		{"a program that cuts", Config{Filter: program(byteIs(12, 8, 44)), Snaplen: 100}},
		{"a program about metadata", Config{Filter: program(pktType)}},
		{"a program that takes nothing", Config{Filter: program(returns(0))}},
		{"a network", Config{Scope: bpf.Scope{Addrs: networks}}},
		{"a network, received", Config{Scope: bpf.Scope{Addrs: networks, Policy: bpf.Classic}, Direction: In}},
		{"a network, a program", Config{Scope: bpf.Scope{Addrs: networks}, Filter: program(byteIs(23, unix.IPPROTO_UDP, 40))}},
		{"all VLANs", Config{Scope: bpf.Scope{Addrs: networks, VLANs: bpf.VLANs{Any: true}}}},
		{"a VLAN, snaplen", Config{Scope: bpf.Scope{Addrs: scopeOf(1).Addrs, VLANs: bpf.VLANs{IDs: []uint16{7}}}, Snaplen: 48}},
		{"a VLAN, a program that cuts", Config{Scope: bpf.Scope{Addrs: scopeOf(1).Addrs, VLANs: bpf.VLANs{IDs: []uint16{7}}}, Filter: program(returns(50))}},
	}
	l := newLab(t)
	others := l.share(t, Config{Scope: scopeOf(2, 3), Direction: InOut})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.cfg.Engine, test.cfg.RingBytes = EBPF, 4<<20 // nobody reads meanwhile
			if test.cfg.Scope.Addrs == nil {
				test.cfg.Scope.Addrs = append(scopeOf(1).Addrs, netip.PrefixFrom(a6(1).Addr(), 128))
			}
			own := l.open(t, test.cfg)
			shared := l.share(t, test.cfg)
			frames := hubFrames()
			l.send(t, frames...)
			l.near.Inject(t, "eth0", frames...)
			if test.cfg.Direction == In { // that another host sends
				l.send(t, marker)
			} else {
				l.near.Inject(t, "eth0", marker)
			}
			want, got := untilEnd(t, own), untilEnd(t, shared)
			if len(want) < 5 && test.name != "a program that takes nothing" {
				t.Errorf("%d frames only", len(want))
			}
			if len(got) != len(want) {
				t.Errorf("%d frames, want %d", len(got), len(want))
			}
			for i := range min(len(got), len(want)) {
				g, w := got[i], want[i]
				if !bytes.Equal(g.data, w.data) || g.len != w.len || g.outgoing != w.outgoing {
					t.Fatalf("frame %d: %q, %d on the wire, outgoing %v; want %q, %d, %v", i, g.data, g.len, g.outgoing, w.data, w.len, w.outgoing)
				}
				if d := g.time.Sub(w.time).Abs(); d > time.Second {
					t.Errorf("frame %d: %v apart", i, d)
				}
			}
			compareStats(t, shared, own)
		})
	}
	if s, err := others.Stats(); err != nil || s.Received == 0 || s.Dropped != 0 {
		t.Errorf("the other capture in the hub: %+v, %v", s, err)
	}
}

// untilEnd reads all that has come in.
func untilEnd(t *testing.T, tap *Tap) (all []seen) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	end()
	err := tap.Read(ctx, func(p *Packet) error {
		all = append(all, seen{slices.Clone(p.Data), p.Len, p.Time, p.Outgoing})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func compareStats(t *testing.T, got, want *Tap) {
	t.Helper()
	g, err := got.Stats()
	if err != nil {
		t.Fatal(err)
	}
	w, err := want.Stats()
	if err != nil {
		t.Fatal(err)
	}
	format := func(s Stats) string {
		return fmt.Sprintf("%d received, %d dropped, %d seen, %d in scope, %d matched", s.Received, s.Dropped, *s.Seen, *s.InScope, *s.Matched)
	}
	if format(g) != format(w) {
		t.Errorf("counts: %s; want %s", format(g), format(w))
	}
}

// Whatever the size of a frame, all of it is there.
func TestFramesOfAllSizesComeWholeOutOfAHub(t *testing.T) {
	l := newLab(t)
	const mtu = 65535
	for _, n := range []*testutil.Namespace{l.near, l.far} {
		onLink(t, n, "eth0", func(link netlink.Link) error { return netlink.LinkSetMTU(link, mtu) })
	}
	tap := l.share(t, Config{Scope: scopeOf(1), RingBytes: 1 << 20})
	for _, room := range []int{104, 232, 616, 1128, 1544, 2088, 4136, 9256, 16424, 33000, 65000} {
		for _, size := range []int{room - 1, room, room + 1} {
			payload := make([]byte, size-42)
			rand.NewChaCha8([32]byte{byte(size)}).Read(payload)
			frame := udp(1, 2, string(payload))
			check(t, l.exchange(t, tap, frame), frame)
		}
	}
}

func TestOneFrameComesToAllCapturesThatItConcerns(t *testing.T) {
	l := newLab(t)
	var ones []*Tap
	for range 3 {
		ones = append(ones, l.share(t, Config{Scope: scopeOf(1)}))
	}
	two, both, third := l.share(t, Config{Scope: scopeOf(2)}), l.share(t, Config{Scope: scopeOf(1, 2)}), l.share(t, Config{Scope: scopeOf(3)})
	l.send(t, udp(1, 2, "own to own"), udp(2, 4, "of the second"), marker)
	for _, tap := range ones {
		check(t, until(t, tap, "the end"), udp(1, 2, "own to own"))
	}
	for _, tap := range []*Tap{two, both} {
		check(t, until(t, tap, "the end"), udp(1, 2, "own to own"), udp(2, 4, "of the second"))
	}
	check(t, until(t, third, "the end"))
}

// What others than captures in the hub get is not the hub's business.
func TestAHubTakesNothingFromOtherSockets(t *testing.T) {
	l := newLab(t)
	before := l.open(t, Config{NoScope: true})
	shared := l.share(t, Config{Scope: scopeOf(1)})
	after := l.open(t, Config{Scope: scopeOf(2)})
	frames := [][]byte{udp(1, 2, "a"), udp(2, 3, "b"), udp(3, 4, "c")}
	l.send(t, append(slices.Clone(frames), marker)...)
	check(t, until(t, before, "the end"), frames...)
	check(t, until(t, shared, "the end"), frames[0])
	check(t, until(t, after, "the end"), frames[:2]...)
}

// The hub says to whose program a frame is shown; what that says counts.
func TestWrongListsInAHubShowNothingForeign(t *testing.T) {
	l := newLab(t)
	tap := l.share(t, Config{Scope: bpf.Scope{Addrs: scopeOf(1).Addrs, Policy: bpf.ClassicHost}})
	for host := byte(2); host < 10; host++ {
		if err := tap.shared.add(scopeOf(host).Addrs); err != nil {
			t.Fatal(err)
		}
	}
	l.send(t, udp(2, 3, "foreign"), udp(4, 5, "foreign"), udp(1, 2, "the end"))
	check(t, until(t, tap, "the end"))
	if sum, err := sumCounters(tap.filter.(*sharedFilter).maps.counters); err != nil || sum.Seen != 3 || sum.InScope != 1 {
		t.Errorf("its program was asked %d times and found %d in scope, %v; want 3 and 1", sum.Seen, sum.InScope, err)
	}
}

func TestTheScopeOfACaptureInAHubChanges(t *testing.T) {
	l := newLab(t)
	tap := l.share(t, Config{Scope: scopeOf(1), ScopeChanges: true})
	l.flood(t, udp(2, 3, "foreign"))
	for n := range 100 {
		if err := tap.SetScope(scopeOf(4 + byte(n%2))); err != nil {
			t.Fatal(err)
		}
	}
	onlyOwn(t, tap)
	check(t, l.exchange(t, tap, udp(5, 6, "new"), udp(1, 6, "old")), udp(5, 6, "new"))
	if err := tap.SetScope(bpf.Scope{Addrs: scopeOf(5).Addrs, Policy: bpf.ClassicHost}); err != nil {
		t.Fatal(err)
	}
	l.send(t, marker, udp(5, 6, "last"))
	check(t, until(t, tap, "last"))

	network := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.4/31")}}
	if err := tap.SetScope(network); err != nil {
		t.Fatal(err)
	}
	check(t, l.exchange(t, tap, udp(4, 6, "of the network"), udp(6, 5, "of the network"), udp(6, 7, "old")), udp(4, 6, "of the network"), udp(6, 5, "of the network"))
	if err := tap.SetScope(scopeOf(7)); err != nil {
		t.Fatal(err)
	}
	check(t, l.exchange(t, tap, udp(7, 6, "again"), udp(4, 6, "old")), udp(7, 6, "again"))
}

// A frame is neither lost nor seen twice while others come and go.
func TestACaptureInAHubMissesNothingWhileOthersComeAndGo(t *testing.T) {
	l := newLab(t)
	first := l.share(t, Config{Scope: scopeOf(9)})
	tap := l.share(t, Config{Scope: scopeOf(1), RingBytes: 32 << 20})
	counted := l.numbered(t)
	first.Close()
	for n := range 20 {
		other := l.share(t, Config{Scope: scopeOf(9, 1), RingBytes: 1})
		if n%3 == 0 {
			killedCapture(t, l)
		}
		other.Close()
	}
	allNumbered(t, tap, counted())
}

func TestCapturesThatEnterAHubAtOnceDoNotDisturbOthers(t *testing.T) {
	l := newLab(t)
	tap := l.share(t, Config{Scope: scopeOf(1), RingBytes: 32 << 20})
	counted := l.numbered(t)
	var g errgroup.Group
	for i := range byte(6) {
		g.Go(func() error {
			for range 30 {
				other, err := Open(Config{Interface: "eth0", Namespace: l.near, Scope: scopeOf(2, 10+i), RingBytes: 1, Hub: HubAlways})
				if err != nil {
					return err
				}
				if other.shared == nil {
					t.Errorf("it does not share the hub: %s", other.Reason())
				}
				other.Close()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	allNumbered(t, tap, counted())
}

// Of many that come at once all share a hub, but for the first two.
func TestOfManyThatComeAtOnceTwoHaveSocketsOfTheirOwn(t *testing.T) {
	l := newLab(t)
	taps := make([]*Tap, 60)
	var g errgroup.Group
	for i := range taps {
		g.Go(func() (err error) {
			taps[i], err = Open(Config{Interface: "eth0", Namespace: l.near, Scope: scopeOf(byte(i)), RingBytes: 1})
			return err
		})
	}
	err := g.Wait()
	own := 0
	for _, tap := range taps {
		if tap == nil {
			continue
		}
		if tap.shared == nil {
			own++
		}
		defer tap.Close()
	}
	if err != nil || own > ownSockets {
		t.Errorf("%d have sockets of their own, %v; want %d at most", own, err, ownSockets)
	}
}

// numbered sends frames with numbers until the result is called, which says how many.
func (l lab) numbered(t *testing.T) (stop func() uint32) {
	t.Helper()
	ended, sent := make(chan struct{}), make(chan uint32)
	go func() {
		n := uint32(0)
		err := l.far.Do(func() error {
			fd, to, err := wire()
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for {
				select {
				case <-ended:
					return nil
				case <-time.After(200 * time.Microsecond):
				}
				frame := udp(1, 2, string(binary.BigEndian.AppendUint32(nil, n)))
				if err := unix.Sendto(fd, frame, 0, to); err != nil {
					return err
				}
				n++
			}
		})
		if err != nil {
			t.Error(err)
		}
		sent <- n
	}()
	return func() uint32 { close(ended); return <-sent }
}

// wire is a socket to send frames with, in the calling thread's namespace.
func wire() (fd int, to *unix.SockaddrLinklayer, err error) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return -1, nil, err
	}
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	return fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}, err
}

func allNumbered(t *testing.T, tap *Tap, n uint32) {
	t.Helper()
	arrived(t, tap, uint64(n)) // the last ones may be under way
	all := untilEnd(t, tap)
	if uint32(len(all)) != n || n < 50 {
		t.Errorf("%d frames, want %d, and many", len(all), n)
	}
	for i, s := range all {
		if got := binary.BigEndian.Uint32(s.data[42:]); got != uint32(i) {
			t.Fatalf("frame %d is number %d", i, got)
		}
	}
}

// captureVariable has the test binary capture in a hub until it is killed: it is the
// path of the namespace.
const captureVariable = "JAILTAP_TEST_CAPTURE"

func init() {
	if path := os.Getenv(captureVariable); path != "" {
		captureUntilKilled(path)
	}
}

func captureUntilKilled(path string) {
	tap, err := Open(Config{Interface: "eth0", Namespace: &netlab.Namespace{Name: path, Path: path}, Scope: scopeOf(1, 8), Hub: HubAlways})
	if err != nil || tap.shared == nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready", tap.shared.id)
	select {}
}

// A capturing is another process that captures in the hub.
type capturing struct {
	cmd *exec.Cmd
	id  uint32 // the capture's number
}

func startCapture(t *testing.T, l lab) (c capturing) {
	t.Helper()
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Env = append(os.Environ(), captureVariable+"="+l.near.Path)
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if _, scan := fmt.Sscanf(line, "ready %d", &c.id); err != nil || scan != nil {
		rest, _ := io.ReadAll(stdout)
		t.Fatalf("%v, %v: %s%s", err, scan, line, rest)
	}
	return c
}

func (c capturing) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// killedCapture has another process capture in the hub, and kills it. It returns the
// capture's number.
func killedCapture(t *testing.T, l lab) (id uint32) {
	t.Helper()
	c := startCapture(t, l)
	c.kill()
	return c.id
}

func TestWhatAKilledCaptureLeavesInAHubIsTakenAway(t *testing.T) {
	l := newLab(t)
	tap := l.share(t, Config{Scope: scopeOf(1)})
	id := killedCapture(t, l)
	check(t, l.exchange(t, tap, udp(1, 2, "own"), udp(8, 2, "the dead one's")), udp(1, 2, "own"))

	next := l.share(t, Config{Scope: scopeOf(2)})
	if next.shared.id != id {
		t.Errorf("the next capture is number %d, want %d", next.shared.id, id)
	}
	var sharers hubSharers
	if err := tap.shared.Owners4.Lookup(station(8).Addr().AsSlice(), &sharers); !errors.Is(err, cilium.ErrKeyNotExist) {
		t.Errorf("its address still has %v, %v", sharers.Id, err)
	}
	if err := tap.shared.Owners4.Lookup(station(1).Addr().AsSlice(), &sharers); err != nil || sharers.Id != [8]uint16{uint16(tap.shared.id) + 1} {
		t.Errorf("the address that it shared has %v, %v", sharers.Id, err)
	}
	check(t, l.exchange(t, next, udp(1, 2, "own"), udp(8, 3, "the dead one's")), udp(1, 2, "own"))
}

func TestAHubGoesWithItsLastCapture(t *testing.T) {
	l := newLab(t)
	a, b := l.share(t, Config{Scope: scopeOf(1)}), l.share(t, Config{Scope: scopeOf(1)})
	file := a.shared.file.Name()
	a.Close()
	if _, err := os.Stat(file); err != nil {
		t.Errorf("with one capture left: %v", err)
	}
	check(t, l.exchange(t, b, udp(1, 2, "own")), udp(1, 2, "own"))
	b.Close()
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", file, err)
	}
	killedCapture(t, l)
	c := l.share(t, Config{Scope: scopeOf(1)})
	check(t, l.exchange(t, c, udp(1, 2, "own")), udp(1, 2, "own"))
}

// Frames that the scopes before and after have in common come once, however the scopes
// are made up.
func TestACaptureMissesNothingWhileItsScopeChanges(t *testing.T) {
	small, large := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}}, bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/30")}}
	for name, scopes := range map[string][]bpf.Scope{
		"addresses":           {scopeOf(1, 4), scopeOf(5, 1)},
		"networks":            {small, large},
		"address and network": {scopeOf(1, 4), small, scopeOf(5, 1)},
	} {
		for _, hub := range []Hub{HubNever, HubAlways} {
			t.Run(name+", hub "+string(hub), func(t *testing.T) {
				l := newLab(t)
				tap := l.open(t, Config{Engine: EBPF, Hub: hub, Scope: scopeOf(1), RingBytes: 64 << 20, ScopeChanges: true})
				if (tap.shared != nil) != (hub == HubAlways) {
					t.Fatal(tap.Reason())
				}
				counted := l.numbered(t)
				for n, start := 0, time.Now(); time.Since(start) < 200*time.Millisecond; n++ {
					if err := tap.SetScope(scopes[n%len(scopes)]); err != nil {
						t.Fatal(err)
					}
				}
				allNumbered(t, tap, counted())
			})
		}
	}
}

func TestACaptureInAHubWhoseScopeItCannotHoldSeesNothingUntilItCan(t *testing.T) {
	l := newLab(t)
	network := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}}
	for range hubShares {
		l.share(t, Config{Scope: network, RingBytes: 1})
	}
	tap := l.share(t, Config{Scope: scopeOf(1), ScopeChanges: true})
	if err := tap.SetScope(network); !errors.Is(err, errHubFull) {
		t.Errorf("one network too many: %v, want %v", err, errHubFull)
	}
	l.send(t, udp(1, 2, "while there is no scope"), marker)
	if err := tap.SetScope(scopeOf(1)); err != nil {
		t.Fatal(err)
	}
	check(t, l.exchange(t, tap, udp(1, 2, "own")), udp(1, 2, "own"))
}

// The first two captures at an interface have sockets of their own, others share the hub.
func TestTheThirdCaptureAtAnInterfaceSharesAHub(t *testing.T) {
	l := newLab(t)
	first, second := l.open(t, Config{Scope: scopeOf(1)}), l.open(t, Config{Scope: scopeOf(2)})
	many := manyAddrs(mostShared + 1)
	uncounted := []*Tap{l.open(t, Config{Scope: many}), l.open(t, Config{NoScope: true}), l.open(t, Config{Scope: scopeOf(2), Engine: EBPF}), l.open(t, Config{Scope: scopeOf(2), Hub: HubNever})}
	for _, tap := range append(uncounted, first, second) {
		if tap.shared != nil {
			t.Errorf("it shares the hub: %+v", tap.link)
		}
	}
	third, fourth := l.open(t, Config{Scope: scopeOf(3)}), l.open(t, Config{Scope: scopeOf(4), ScopeChanges: true})
	network := l.open(t, Config{Scope: bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.4/31")}}})
	if third.shared == nil || fourth.shared == nil || network.shared != nil {
		t.Errorf("the third: %s; the fourth: %s; one with a network: %s", third.Reason(), fourth.Reason(), network.Reason())
	}
	l.send(t, udp(1, 3, "a"), udp(2, 4, "b"), udp(5, 6, "c"), marker)
	for tap, want := range map[*Tap][]byte{first: udp(1, 3, "a"), second: udp(2, 4, "b"), third: udp(1, 3, "a"), fourth: udp(2, 4, "b"), network: udp(5, 6, "c")} {
		if tap == network {
			check(t, until(t, tap, "the end"), udp(2, 4, "b"), want)
		} else {
			check(t, until(t, tap, "the end"), want)
		}
	}
	first.Close()
	if again := l.open(t, Config{Scope: scopeOf(1)}); again.shared == nil {
		t.Errorf("one that comes when there is a hub: %s", again.Reason())
	}
}

// Who seems to be the first, and finds others when packets come in already, goes to the hub.
func TestACaptureThatSeemsToBeTheFirstAndIsNotSharesAHub(t *testing.T) {
	l := newLab(t)
	others := func(bpf.LinkType) (bpf.Program, error) {
		for n := range byte(ownSockets) {
			if tap := l.open(t, Config{Scope: scopeOf(2 + n)}); tap.own == nil {
				t.Errorf("other %d: %s", n, tap.Reason())
			}
		}
		return nil, nil
	}
	before, err := start(Config{Interface: "eth0", Namespace: l.near})
	if err != nil {
		t.Fatal(err)
	}
	defer before.close()
	if before.mustShare(Config{Scope: scopeOf(1)}) {
		t.Error("it does not seem to be the first")
	}
	tap := l.open(t, Config{Scope: scopeOf(1), Filter: others})
	if tap.shared == nil || tap.own != nil {
		t.Errorf("it has its own socket: %s", tap.Reason())
	}
	check(t, l.exchange(t, tap, udp(1, 2, "own"), udp(3, 4, "foreign")), udp(1, 2, "own"))
	if !before.mustShare(Config{Scope: scopeOf(1)}) {
		t.Error("another seems to be the first")
	}
}

func TestACaptureThatCannotBeOnTheRosterHasItsOwnSocket(t *testing.T) {
	l := newLab(t)
	tap, err := start(Config{Interface: "eth0", Namespace: l.near})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.close()
	path, err := rosterPath(tap.fd, tap.link)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(rosters, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"seems first": "nowhere", "sees others": "/dev/null"} {
		t.Run(name, func(t *testing.T) {
			if err := os.Symlink(target, path); err != nil { // which is not followed
				t.Fatal(err)
			}
			defer os.Remove(path)
			for range ownSockets + 1 {
				tap := l.open(t, Config{Scope: scopeOf(1)})
				if tap.shared != nil || tap.own != nil {
					t.Errorf("shares the hub: %v, on the roster: %v", tap.shared != nil, tap.own != nil)
				}
				check(t, l.exchange(t, tap, udp(1, 2, "own"), udp(3, 4, "foreign")), udp(1, 2, "own"))
			}
		})
	}
}

func TestManyCapturesThatAreOpenedAtOnceShareAHub(t *testing.T) {
	l := newLab(t)
	const n = 100
	taps := make([]*Tap, n)
	var g errgroup.Group
	for i := range taps {
		g.Go(func() (err error) {
			taps[i], err = Open(Config{Interface: "eth0", Namespace: l.near, Scope: scopeOf(byte(1 + i)), RingBytes: 1, Immediate: true})
			return err
		})
	}
	err := g.Wait()
	t.Cleanup(func() {
		for _, tap := range taps {
			if tap != nil {
				tap.Close()
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	own := 0
	for _, tap := range taps {
		if tap.shared == nil {
			own++
		}
	}
	if own != ownSockets {
		t.Errorf("%d have sockets of their own, want %d", own, ownSockets)
	}
	for i := range taps {
		l.send(t, udp(byte(1+i), 200, "own"))
	}
	l.send(t, marker)
	for i, tap := range taps {
		check(t, until(t, tap, "the end"), udp(byte(1+i), 200, "own"))
	}
}

func TestAHubOutlivesTheCaptureThatMadeIt(t *testing.T) {
	l := newLab(t)
	maker := startCapture(t, l)
	tap := l.share(t, Config{Scope: scopeOf(1), RingBytes: 32 << 20})
	counted := l.numbered(t)
	maker.kill()
	for range 4 {
		startCapture(t, l).kill() // which has taken the hub over from this process
	}
	allNumbered(t, tap, counted())
}

// A process that has a dead capture's number does not pass for it.
func TestADescriptorThatIsNotTheHubsSocketIsNotTaken(t *testing.T) {
	l := newLab(t)
	tap := l.share(t, Config{Scope: scopeOf(1)})
	e, err := tap.shared.entry(tap.shared.id)
	if err != nil {
		t.Fatal(err)
	}
	other := l.open(t, Config{Scope: scopeOf(2), Hub: HubNever})
	e.Socket = uint32(other.fd)
	if err := tap.shared.roster.publish(e); err != nil {
		t.Fatal(err)
	}
	next := l.open(t, Config{Scope: scopeOf(3), Hub: HubAlways})
	if next.shared != nil || !strings.Contains(next.Reason(), "is not the hub's socket") {
		t.Errorf("%s", next.Reason())
	}
	check(t, l.exchange(t, next, udp(3, 2, "own")), udp(3, 2, "own"))
}

func TestAfterTheInterfaceWasDownThereIsANewHub(t *testing.T) {
	l := newLab(t)
	old, older := l.share(t, Config{Scope: scopeOf(1)}), l.share(t, Config{Scope: scopeOf(2)})
	onLink(t, l.near, "eth0", netlink.LinkSetDown)
	onLink(t, l.near, "eth0", netlink.LinkSetUp)
	for _, n := range []*testutil.Namespace{l.near, l.far} {
		for state := netlink.LinkOperState(0); state != netlink.OperUp; time.Sleep(time.Millisecond) {
			onLink(t, n, "eth0", func(link netlink.Link) error { state = link.Attrs().OperState; return nil })
		}
	}
	tap, second := l.share(t, Config{Scope: scopeOf(1)}), l.share(t, Config{Scope: scopeOf(2)})
	if tap.shared.socket == old.shared.socket || sameSocket(t, tap, old) || !sameSocket(t, tap, second) {
		t.Error("they do not share a new socket")
	}
	for _, tap := range []*Tap{old, older} {
		if err := tap.Read(t.Context(), func(*Packet) error { return nil }); !errors.Is(err, ErrInterfaceDown) {
			t.Errorf("a capture from before: %v, want %v", err, ErrInterfaceDown)
		}
	}
	check(t, l.exchange(t, tap, udp(1, 2, "own")), udp(1, 2, "own"))
}

func sameSocket(t *testing.T, a, b *Tap) bool {
	t.Helper()
	var cookies [2]uint64
	for i, tap := range []*Tap{a, b} {
		var err error
		if cookies[i], err = unix.GetsockoptUint64(tap.shared.socket, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
			t.Fatal(err)
		}
	}
	return cookies[0] == cookies[1]
}

func TestACaptureThatCannotShareAHubHasItsOwnSocketAndSaysWhy(t *testing.T) {
	l := newLab(t)
	random := bpf.Program{{Op: 0x20, K: 0xfffff038}, {Op: 0x06, K: 100}}
	for _, test := range []struct {
		cfg Config
		why string
	}{
		{Config{NoScope: true}, "needs a scope"},
		{Config{Scope: scopeOf(1), Engine: CBPF}, "engine ebpf"},
		{Config{Scope: scopeOf(1), Interface: Any}, "not Ethernet"},
		{Config{Scope: scopeOf(1), Interface: "lo"}, "loopback"},
		{Config{Scope: scopeOf(1), Filter: program(random)}, "metadata"},
	} {
		test.cfg.Hub = HubAlways
		tap := l.open(t, test.cfg)
		if tap.shared != nil || !strings.Contains(tap.Reason(), test.why) {
			t.Errorf("%+v: %q, want a reason with %q", test.cfg, tap.Reason(), test.why)
		}
		if test.cfg.Interface != "lo" && test.cfg.Interface != Any {
			check(t, l.exchange(t, tap, udp(1, 2, "own")), udp(1, 2, "own"))
		}
	}
}

func TestTheCaptureThatIsOneTooManyForAnAddressIsShownAllFrames(t *testing.T) {
	l := newLab(t)
	var taps []*Tap
	for range hubShares {
		taps = append(taps, l.share(t, Config{Scope: scopeOf(1), RingBytes: 1}))
	}
	last := l.share(t, Config{Scope: scopeOf(2, 1)})
	if !last.shared.watching {
		t.Error("the last is shown frames of its addresses only")
	}
	taps = append(taps, last)
	l.send(t, udp(1, 3, "own"), marker)
	for _, tap := range taps {
		check(t, until(t, tap, "the end"), udp(1, 3, "own"))
	}
}

func TestAFrameThatFindsNoRoomInAHubsRingIsCounted(t *testing.T) {
	l := newLab(t)
	tap := l.share(t, Config{Scope: scopeOf(1), RingBytes: 1})
	const n = 100
	for range n {
		l.send(t, udp(1, 2, "own"))
	}
	all := untilEnd(t, tap)
	s, err := tap.Stats()
	if err != nil || s.Received != n || s.Dropped == 0 || uint64(len(all)) != s.Received-s.Dropped {
		t.Errorf("%d frames of %d; %+v, %v", len(all), n, s, err)
	}
}

func TestARingInAHubIsAsLargeAsOneOfOnesOwn(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct {
		asked     int
		immediate bool
		want      uint32
	}{{0, false, 2 << 20}, {0, true, 4 << 20}, {3 << 20, true, 4 << 20}, {1 << 20, false, 1 << 20}} {
		tap, err := Open(Config{Interface: "eth0", Namespace: l.near, Scope: scopeOf(1), Hub: HubAlways, RingBytes: test.asked, Immediate: test.immediate})
		if err != nil {
			t.Fatal(err)
		}
		if got := tap.shared.ring.MaxEntries(); got != test.want {
			t.Errorf("%d bytes, immediate %v: %d, want %d", test.asked, test.immediate, got, test.want)
		}
		tap.Close()
	}
}

func TestAnInterfaceThatIsGoneEndsACaptureInAHub(t *testing.T) {
	l := newLab(t)
	tap := l.share(t, Config{Scope: scopeOf(1)})
	l.send(t, udp(1, 2, "own"))
	onLink(t, l.near, "eth0", netlink.LinkDel)
	n := 0
	err := tap.Read(t.Context(), func(*Packet) error { n++; return nil })
	if !errors.Is(err, ErrInterfaceGone) || n != 1 {
		t.Errorf("%d frames, then %v; want 1, then %v", n, err, ErrInterfaceGone)
	}
}
