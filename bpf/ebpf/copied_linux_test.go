package ebpf_test

import (
	"net/netip"
	"testing"

	cilium "github.com/cilium/ebpf"
	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

// TestBehindAScopeAllOfTheFrameIsAsItCame: though its start is on the stack, where scopes work.
func TestBehindAScopeAllOfTheFrameIsAsItCame(t *testing.T) {
	testutil.NeedRoot(t)
	jail4, other4 := netip.MustParseAddrPort("10.0.0.5:1000"), netip.MustParseAddrPort("10.0.0.6:2000")
	jail6, other6 := netip.MustParseAddrPort("[fd00::5]:1000"), netip.MustParseAddrPort("[fd00::6]:2000")
	udp := testutil.UDP4(other4, jail4, []byte("some payload"))
	frames := map[string][]byte{
		"IPv4": udp, "IPv6": testutil.UDP6(other6, jail6, []byte("some payload")), "tagged": testutil.Tagged(udp, 0x8100, 7),
		"ARP": testutil.ARP(testutil.ARPRequest, other4.Addr(), jail4.Addr(), testutil.BroadcastMAC),
	}
	const ldW, retA = 0x20, 0x16 // linux/bpf_common.h; of half-words and bytes 8 and 16 more
	for _, s := range []bpf.Scope{
		{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32"), netip.MustParsePrefix("fd00::5/128")}},
		{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.4/30"), netip.MustParsePrefix("fd00::4/126")}, VLANs: bpf.VLANs{Any: true}},
	} {
		view := bpf.View{LinkType: bpf.Ethernet, Live: true}
		for off := range uint32(42) {
			for _, op := range []uint16{ldW, ldW + 8, ldW + 16} {
				user := bpf.Program{{Op: op, K: off}, {Op: retA}}
				l := loadScope(t, view, s, user, cilium.SchedCLS)
				for name, frame := range frames {
					want, _ := bpf.VM{}.Count(user, bpf.Packet{Data: frame, WireLen: uint32(len(frame))})
					if !s.Match(bpf.Ethernet, frame) {
						want = 0
					}
					if got := l.run(t, frame); got != want {
						t.Errorf("%s, VLANs %+v, %s: %#x, want %#x", name, s.VLANs, bpf.Program{xbpf.RawInstruction(user[0])}.Line(0), got, want)
					}
				}
			}
		}
	}
}
