//go:build amd64 || arm64

package escape

import (
	"fmt"
	"net/netip"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

// Who there is. All others are foreign to the jail, the neighbour as well.
var (
	jail4      = netip.MustParseAddr("10.0.0.5")
	jail6      = netip.MustParseAddr("2001:db8::5")
	neighbour4 = netip.MustParseAddr("10.0.0.6")
	far4       = netip.MustParseAddr("10.0.0.2")
	other4     = netip.MustParseAddr("10.0.0.9")
	far6       = netip.MustParseAddr("2001:db8::2")
	other6     = netip.MustParseAddr("2001:db8::9")
)

// jailScope is the attackers' scope.
func jailScope(policy string) bpf.Scope {
	s := bpf.Scope{Addrs: []netip.Prefix{netip.PrefixFrom(jail4, 32), netip.PrefixFrom(jail6, 128)}}
	if policy == "classic" {
		s.Policy = bpf.Classic
	}
	return s
}

// Words in the payload of the frames that pass by.
const (
	ownWord     = "for the jail to see"
	foreignWord = "NOT FOR THE JAIL"
	numberWord  = "number "
	markerWord  = "escaped "
)

type mac = testutil.MAC

func udp(src, dst netip.Addr, payload string) []byte {
	return testutil.UDP4(netip.AddrPortFrom(src, 1000), netip.AddrPortFrom(dst, 1000), []byte(payload))
}

func trailed(frame []byte, text string) []byte { return append(frame, text...) }

// own and foreign are what passes by, on an interface with Ethernet's header.
func own() [][]byte {
	mac := testutil.MACOf(jail4)
	return [][]byte{
		udp(far4, jail4, ownWord),
		append(mac[:], udp(far6, jail6, ownWord)[6:]...),
		trailed(testutil.ARP(testutil.ARPReply, far4, jail4, testutil.MACOf(jail4)), ownWord),
	}
}

func foreign() [][]byte {
	return [][]byte{
		udp(far4, other4, foreignWord),
		udp(other4, far4, foreignWord),
		testutil.TCP4(netip.AddrPortFrom(far4, 80), netip.AddrPortFrom(other4, 999), testutil.ACK, []byte(foreignWord)),
		udp(far6, other6, foreignWord),
		trailed(testutil.ARP(testutil.ARPReply, far4, other4, testutil.MACOf(other4)), foreignWord),
		testutil.Tagged(udp(far4, jail4, foreignWord), 0x8100, 7),
		testutil.Tagged(udp(far4, other4, foreignWord), 0x8100, 7),
	}
}

// numbered is a frame to the neighbour. The source port, and so the flow, is
// another each time.
func numbered(n uint32) []byte {
	src := netip.AddrPortFrom(far4, uint16(n))
	return testutil.UDP4(src, netip.AddrPortFrom(neighbour4, 1000), fmt.Appendf(nil, "%s%s%08d", foreignWord, numberWord, n))
}

// forged are foreign packets without a link-level header that have the jail's
// address, and Ethernet's type of IPv4, where they would be behind one.
func forged() [][]byte {
	packet := udp(far4, other4, foreignWord+foreignWord)[14:]
	copy(packet[12:], []byte{8, 0})
	copy(packet[26:], jail4.AsSlice())
	copy(packet[30:], jail4.AsSlice())
	return [][]byte{packet, udp(far4, other4, foreignWord)[14:], udp(far6, other6, foreignWord)[14:]}
}
