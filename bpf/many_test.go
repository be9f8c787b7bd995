package bpf_test

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"strings"
	"testing"

	"jailtap/bpf"
)

// scattered4 are n addresses of which no two touch.
func scattered4(n int) []netip.Prefix {
	addrs := make([]netip.Prefix, n)
	for i := range addrs {
		addrs[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 15), byte(i >> 7), byte(i << 1)}), 32)
	}
	return addrs
}

func ipv4Frame(src, dst netip.Addr) []byte {
	frame := make([]byte, 60)
	frame[0], frame[6], frame[12], frame[14] = 2, 2, 8, 0x45
	copy(frame[26:], src.AsSlice())
	copy(frame[30:], dst.AsSlice())
	return frame
}

func TestManyAddressesAreATree(t *testing.T) {
	outside := netip.MustParseAddr("172.16.0.1")
	for _, n := range []int{1, 2, 3, 10, 100, 600} {
		scope := bpf.Scope{Addrs: scattered4(n), Policy: bpf.Classic}
		p, err := bpf.Compile(scope, bpf.View{LinkType: bpf.Ethernet}, bpf.Linux, nil)
		if err != nil {
			t.Fatal(err)
		}
		// For each address a comparison or two for every level, and as many
		// jumps that only bridge a distance; four instructions around each
		// tree, and the tests of the protocol and of multicast.
		limit := 2*(2*(bits.Len(uint(n))+2)) + 10
		most := 0
		for _, a := range append(scope.Addrs, netip.PrefixFrom(outside, 32)) {
			for _, frame := range [][]byte{ipv4Frame(a.Addr(), outside), ipv4Frame(outside, a.Addr())} {
				verdict, steps := (bpf.VM{}).Count(p, bpf.Packet{Data: frame, WireLen: 60})
				if want := a.Addr() != outside; (verdict != 0) != want {
					t.Fatalf("%d addresses, %v: verdict %d", n, a, verdict)
				}
				most = max(most, steps)
			}
		}
		t.Logf("%d addresses: %d instructions, at most %d of them executed", n, len(p), most)
		if most > limit {
			t.Errorf("%d addresses: %d instructions executed, want at most %d", n, most, limit)
		}
	}
}

func TestTooManyAddressesSayHowManyFit(t *testing.T) {
	for _, d := range []bpf.Dialect{bpf.Linux, bpf.FreeBSD} {
		scope := bpf.Scope{Addrs: scattered4(3000)}
		v := bpf.View{LinkType: bpf.Ethernet}
		_, err := bpf.Compile(scope, v, d, nil)
		var tooMany *bpf.TooManyAddressesError
		if !errors.As(err, &tooMany) {
			t.Fatalf("%v: %v", d, err)
		}
		t.Log(err)
		for _, more := range []int{0, 1} {
			scope.Addrs = scattered4(tooMany.Fit + more)
			if _, err := bpf.Compile(scope, v, d, nil); (err == nil) != (more == 0) {
				t.Errorf("%v: %d addresses: %v", d, len(scope.Addrs), err)
			}
		}
	}
}

func TestAProgramThatLeavesNoRoomForTheScopeSaysSo(t *testing.T) {
	user := make(bpf.Program, 511)
	user = append(user, bpf.Program{{Op: 0x16}}...)
	_, err := bpf.Compile(bpf.Scope{Addrs: scattered4(1)}, bpf.View{LinkType: bpf.Ethernet}, bpf.Linux, user)
	if err != nil {
		t.Errorf("for Linux: %v", err)
	}
	for i := range user[:511] {
		user[i].Op, user[i].K = 0x04, uint32(i) // add #i
	}
	user[0].Op = 0x80 // ld len, so that no sum is known
	_, err = bpf.Compile(bpf.Scope{Addrs: scattered4(1)}, bpf.View{LinkType: bpf.Ethernet}, bpf.FreeBSD, user)
	if tooLong := new(bpf.TooLongError); !errors.As(err, &tooLong) || !strings.Contains(err.Error(), "at most 512") {
		t.Errorf("for FreeBSD: %v", err)
	}
}

// Scopes of many addresses, prefixes and ranges that touch, IPv4 and IPv6, give
// the verdicts of Match at and around each of their ends.
func TestAScopeOfManyAddressesIsItsSpecification(t *testing.T) {
	s := newSource(seed() + 3)
	compared := 0
	for range 30 {
		scope := bpf.Scope{Policy: pick(s, bpf.Full, bpf.Classic)}
		for range 1 + s.IntN(120) {
			scope.Addrs = append(scope.Addrs, s.prefix())
		}
		lt := pick(s, bpf.LinkTypes()...)
		user := pick(s, nil, bpf.Program{{Op: 0x20, K: 26}, {Op: 0x35, K: 0x0a000100, Jt: 1}, {Op: 0x06, K: 7}, {Op: 0x06, K: 9}})
		p, err := bpf.Compile(scope, bpf.View{LinkType: lt}, bpf.Linux, user)
		if err != nil {
			t.Fatal(err)
		}
		for range 400 {
			s.addrs4, s.addrs6 = s.around(scope, true), s.around(scope, false)
			frame := s.frame(lt)
			packet := bpf.Packet{Data: frame, WireLen: uint32(len(frame))}
			var want uint32
			if scope.Match(lt, frame) {
				want = (bpf.VM{}).Run(user, packet)
			}
			if got := (bpf.VM{}).Run(p, packet); got != want {
				t.Fatalf("scope %v, %v, frame %x: verdict %d, want %d", scope, lt, frame, got, want)
			}
			compared++
		}
	}
	t.Logf("%d frames", compared)
}

// prefix is a random prefix out of few parts, so that some touch and overlap.
func (s *source) prefix() netip.Prefix {
	if s.IntN(2) == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 0x0a000000|s.Uint32N(1<<12))
		return netip.PrefixFrom(netip.AddrFrom4(b), pick(s, 32, 32, 31, 30, 24, 20, s.IntN(33))).Masked()
	}
	var b [16]byte
	for i := range 4 {
		binary.BigEndian.PutUint32(b[4*i:], pick[uint32](s, 0, 1, 2, 0x20010db8, 0xffffffff))
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), pick(s, 128, 128, 127, 96, 95, 64, 32, 31, s.IntN(129))).Masked()
}

// around are addresses of the scope, and those next to them.
func (s *source) around(scope bpf.Scope, v4 bool) []netip.Addr {
	addrs := []netip.Addr{netip.MustParseAddr("::1")}
	if v4 {
		addrs[0] = netip.MustParseAddr("1.2.3.4")
	}
	for range 6 {
		p := pick(s, scope.Addrs...)
		if p.Addr().Is4() != v4 {
			continue
		}
		first := p.Addr()
		last := first
		if b := last.AsSlice(); true {
			for i := p.Bits(); i < len(b)*8; i++ {
				b[i/8] |= 0x80 >> (i % 8)
			}
			last, _ = netip.AddrFromSlice(b)
		}
		for _, a := range []netip.Addr{first, last, first.Prev(), last.Next()} {
			if a.IsValid() {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}
