package loader

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	xbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

func TestATapSeesExactlyTheFramesOfItsScope(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		tap := l.open(t, Config{Engine: e, Scope: scopeOf(1)})
		own := [][]byte{
			udp(1, 2, "sent"), udp(2, 1, "received"),
			testutil.ARP(testutil.ARPReply, station(1).Addr(), station(2).Addr(), testutil.MACOf(station(2).Addr())),
			testutil.ARP(testutil.ARPRequest, station(2).Addr(), station(3).Addr(), testutil.BroadcastMAC),
		}
		frames := slices.Concat(own, [][]byte{
			udp(2, 3, "foreign"),
			testutil.ARP(testutil.ARPReply, station(2).Addr(), station(3).Addr(), testutil.MACOf(station(3).Addr())),
			testutil.Tagged(udp(1, 2, "another network"), unix.ETH_P_8021Q, 7),
		})
		for range 30 {
			check(t, l.exchange(t, tap, frames...), own...)
		}
		s, err := tap.Stats()
		if err != nil || s.Received != 30*5 || s.Dropped != 0 {
			t.Errorf("got %+v, %v; want 150 received", s, err)
		}
		if e == EBPF && (*s.Seen != 30*8 || *s.InScope != 30*5 || *s.Matched != 30*5) {
			t.Errorf("seen %d, in scope %d, matched %d; want 240, 150, 150", *s.Seen, *s.InScope, *s.Matched)
		}
	})
}

func TestAnUnscopedTapSeesEverything(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		tap := l.open(t, Config{Engine: e, NoScope: true})
		frames := [][]byte{udp(2, 3, "foreign"), testutil.Tagged(udp(1, 2, "tagged"), unix.ETH_P_8021Q, 7)}
		check(t, l.exchange(t, tap, frames...), frames...)
		if err := tap.SetScope(scopeOf(1)); err == nil {
			t.Error("SetScope succeeds")
		}
	})
}

func TestTheUsersProgramRunsInsideTheScope(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		isUDP := byteIs(23, unix.IPPROTO_UDP, 1000)
		tap := l.open(t, Config{Engine: e, Scope: scopeOf(1), Filter: program(isUDP)})
		tcp := testutil.TCP4(station(1), station(2), testutil.SYN, nil)
		check(t, l.exchange(t, tap, tcp, udp(2, 3, "foreign"), udp(1, 2, "own")), udp(1, 2, "own"))
		if s, _ := tap.Stats(); e == EBPF && (*s.InScope != 3 || *s.Matched != 2) {
			t.Errorf("in scope %d, matched %d; want 3 and 2", *s.InScope, *s.Matched)
		}
	})
}

// The sender's address is not in a cooked frame's metadata.
func TestAProgramForWhichTheKernelLacksDataRunsHereBehindTheScope(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		bySender := byteIs(12, 2, 60) // the first byte of all MACs of hosts is 2
		tap := l.open(t, Config{Interface: Any, Engine: e, Scope: scopeOf(1), Filter: program(bySender)})
		other := testutil.Ethernet(testutil.MAC{4}, testutil.MAC{2}, unix.ETH_P_IP, udp(1, 2, "other sender")[14:])
		got := l.exchange(t, tap, other, udp(2, 3, "foreign"), udp(1, 2, strings.Repeat("own", 20)))
		if len(got) != 1 || len(got[0].data) != 60 {
			t.Errorf("got %+v, want one frame, of which 60 bytes are kept", got)
		}
		if s, err := tap.Stats(); err != nil || s.Received != 3 || *s.Matched != 2 {
			t.Errorf("got %+v, %v; want 3 received of which 2 matched", s, err)
		}
	})
}

func TestSetScopeHoldsFromItsReturnOn(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		tap := l.open(t, Config{Engine: e, Scope: scopeOf(1), ScopeChanges: true})
		frames := [][]byte{udp(1, 9, "one"), udp(2, 9, "two"), udp(3, 9, "three")}
		for range 5 {
			for n := byte(1); n <= 3; n++ {
				if err := tap.SetScope(scopeOf(n)); err != nil {
					t.Fatal(err)
				}
				check(t, l.exchange(t, tap, frames...), frames[n-1])
			}
		}
		if err := tap.SetScope(bpf.Scope{}); err != nil {
			t.Fatal(err)
		}
		check(t, l.exchange(t, tap, frames...))
		classic := scopeOf(1)
		classic.Policy = bpf.Classic
		if err := tap.SetScope(classic); err != nil {
			t.Fatal(err)
		}
		arp := testutil.ARP(testutil.ARPReply, station(1).Addr(), station(2).Addr(), testutil.MACOf(station(2).Addr()))
		check(t, l.exchange(t, tap, append(frames, arp)...), frames[0])
		if s, err := tap.Stats(); err != nil || e == EBPF && *s.InScope != s.Received {
			t.Errorf("got %+v, %v: counts were lost", s, err)
		}
	})
}

func TestFramesThatWereInScopeWhenTheyCameStay(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		tap := l.open(t, Config{Engine: e, Scope: scopeOf(1), ScopeChanges: true})
		l.send(t, udp(1, 9, "before"))
		arrived(t, tap, 1)
		if err := tap.SetScope(scopeOf(2)); err != nil {
			t.Fatal(err)
		}
		check(t, l.exchange(t, tap, udp(1, 9, "after")), udp(1, 9, "before"))
	})
}

// manyAddrs are n addresses of which no two are neighbours.
func manyAddrs(n int) bpf.Scope {
	var s bpf.Scope
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 172<<24|uint32(2*i))
		s.Addrs = append(s.Addrs, netip.PrefixFrom(netip.AddrFrom4(a), 32))
	}
	return s
}

func TestAScopeMayGrowBeyondTheMapsThatItBeganWith(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Engine: EBPF, Scope: scopeOf(1)})
	large := manyAddrs(10_000)
	large.Addrs = append(large.Addrs, scopeOf(2).Addrs...)
	for range 2 {
		if err := tap.SetScope(large); err != nil {
			t.Fatal(err)
		}
		check(t, l.exchange(t, tap, udp(1, 9, "one"), udp(2, 9, "two")), udp(2, 9, "two"))
		if err := tap.SetScope(scopeOf(1)); err != nil {
			t.Fatal(err)
		}
		check(t, l.exchange(t, tap, udp(1, 9, "one"), udp(2, 9, "two")), udp(1, 9, "one"))
	}
}

func TestAScopeThatCannotBeSetShutsTheTapUntilOneCan(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		tap := l.open(t, Config{Engine: e, Scope: scopeOf(1)})
		bad := manyAddrs(5_000)
		if e == EBPF { // whose maps would hold them: take those away
			tap.filter.(*withMaps).addrs.Close()
			bad = scopeOf(2)
		}
		if err := tap.SetScope(bad); err == nil {
			t.Fatal("it can be set")
		}
		l.send(t, udp(1, 9, "while shut"), marker)
		if err := tap.SetScope(scopeOf(1)); err != nil {
			t.Fatal(err)
		}
		check(t, l.exchange(t, tap, udp(1, 9, "again")), udp(1, 9, "again"))
	})
}

func TestAProgramThatIsNotProvedIsNotAttached(t *testing.T) {
	l := newLab(t)
	_, fd, err := socket(l.near, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	view := bpf.View{LinkType: bpf.Ethernet, Live: true}
	proved, err := bpf.Compile(scopeOf(1), view, bpf.Linux, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]bpf.Program{
		"everything":     returns(bpf.KeepAll),
		"another scope":  mustCompile(t, scopeOf(2), view),
		"a wider scope":  mustCompile(t, scopeOf(1, 2), view),
		"another view":   mustCompile(t, scopeOf(1), bpf.View{LinkType: bpf.Raw, Live: true}),
		"a tail left on": append(bpf.Program{{Op: 0x05, K: uint32(len(proved))}}, append(proved, returns(1)...)...),
	} {
		if err := attachProved(fd, p, scopeOf(1), view); err == nil {
			t.Errorf("%s is attached", name)
		}
		// Without a filter there is none to detach.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != unix.ENOENT {
			t.Errorf("%s: detach: %v; a filter was there", name, err)
		}
	}
	if err := attachProved(fd, proved, scopeOf(1), view); err != nil {
		t.Error(err)
	}
}

func mustCompile(t *testing.T, s bpf.Scope, v bpf.View) bpf.Program {
	t.Helper()
	p, err := bpf.Compile(s, v, bpf.Linux, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAutoTakesWhatCostsLeastAndSaysWhy(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want Engine
		why  string
	}{
		{Config{Scope: scopeOf(1, 2)}, CBPF, "few fixed addresses: 2"},
		{Config{Scope: manyAddrs(1000)}, EBPF, "many addresses: 1000"},
		{Config{Scope: scopeOf(1), ScopeChanges: true}, EBPF, "the scope changes"},
		{Config{NoScope: true, Engine: Auto}, CBPF, "there is no scope"},
		{Config{Scope: manyAddrs(1000), Engine: CBPF}, CBPF, "it was asked for"},
		{Config{Scope: scopeOf(1), Engine: EBPF}, EBPF, "it was asked for"},
	} {
		if e, why := choose(c.cfg); e != c.want || why != c.why {
			t.Errorf("%d addresses: %s (%s); want %s (%s)", len(c.cfg.Scope.Addrs), e, why, c.want, c.why)
		}
	}
}

// nlattr reads a netlink attribute, which eBPF cannot: SKF_AD_NLATTR.
var nlattr = bpf.Program{{Op: 0x00}, {Op: 0x01}, {Op: 0x20, K: 0xfffff00c}, {Op: 0x06, K: 100}}

// longest leaves no room for a scope in a classic program.
func longest() bpf.Program {
	p := bpf.Program{{Op: 0x30, K: 30}} // ldb [30]
	for range 4090 {
		p = append(p, xbpf.RawInstruction{Op: 0x24, K: 3}) // mul #3
	}
	return append(p, xbpf.RawInstruction{Op: 0x16}) // ret a
}

func TestAutoFallsBackFromAnEngineThatCannotAndSaysWhy(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		cfg    Config
		first  Engine
		reason string
	}{
		{Config{Scope: scopeOf(1), Filter: program(longest())}, CBPF, "too long"},
		{Config{Scope: scopeOf(1), ScopeChanges: true, Filter: program(nlattr)}, EBPF, "no eBPF"},
	} {
		tap := l.open(t, c.cfg)
		if tap.Engine() == c.first || !strings.Contains(tap.Reason(), c.reason) {
			t.Errorf("%s: %s; want not %s, because of %q", tap.Engine(), tap.Reason(), c.first, c.reason)
		}
		c.cfg.Engine, c.cfg.Interface, c.cfg.Namespace = c.first, "eth0", l.near
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s, asked for: %v", c.first, err)
		}
	}
}

// room is how many bytes the filters of sockets in the near namespace may take.
func (l lab) room(t *testing.T, n string) {
	t.Helper()
	const name = "/proc/sys/net/core/optmem_max" // since Linux 6.8 each namespace has its own
	err := l.near.Do(func() error { return os.WriteFile(name, []byte(n), 0) })
	if os.IsNotExist(err) {
		testutil.Skip(t, "net.core.optmem_max is the same for all namespaces")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestWithoutRoomForAClassicProgramAutoTakesMaps(t *testing.T) {
	l := newLab(t)
	l.room(t, "3000")
	s := manyAddrs(fewAddresses)
	tap := l.open(t, Config{Scope: s})
	if tap.Engine() != EBPF || !strings.Contains(tap.Reason(), "net.core.optmem_max") {
		t.Errorf("%s: %s", tap.Engine(), tap.Reason())
	}
	_, err := Open(Config{Interface: "eth0", Namespace: l.near, Scope: s, Engine: CBPF})
	if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "net.core.optmem_max") {
		t.Errorf("cbpf, asked for: %v", err)
	}
}

func TestTheScopeOfAClassicProgramChangesAlsoWhereThereIsRoomForOnlyOne(t *testing.T) {
	l := newLab(t)
	l.room(t, "30000")
	large := func(n byte) bpf.Scope {
		s := manyAddrs(200)
		s.Addrs = append(s.Addrs, scopeOf(n).Addrs...)
		return s
	}
	tap := l.open(t, Config{Engine: CBPF, Scope: large(1)})
	if err := attachProved(tap.fd, mustCompile(t, large(1), bpf.View{LinkType: bpf.Ethernet, Live: true}), large(1),
		bpf.View{LinkType: bpf.Ethernet, Live: true}); !errors.Is(err, unix.ENOMEM) {
		t.Fatalf("there is room for two (%v), which is not what is tested here", err)
	}
	for n := byte(2); n < 5; n++ {
		if err := tap.SetScope(large(n)); err != nil {
			t.Fatal(err)
		}
		check(t, l.exchange(t, tap, udp(1, 9, "one"), udp(n, 9, "own")), udp(n, 9, "own"))
	}
}

func TestTooManyAddressesForAClassicProgramIsAnErrorThatSaysHowManyFit(t *testing.T) {
	l := newLab(t)
	_, err := Open(Config{Interface: "eth0", Namespace: l.near, Engine: CBPF, Scope: manyAddrs(5_000)})
	var tooMany *bpf.TooManyAddressesError
	if !errors.As(err, &tooMany) || tooMany.Fit < 100 || !strings.Contains(err.Error(), "engine ebpf") {
		t.Errorf("got %v", err)
	}
}
