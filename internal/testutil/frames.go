package testutil

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// A MAC is an Ethernet address.
type MAC [6]byte

// BroadcastMAC is the Ethernet address of all stations.
var BroadcastMAC = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// EtherTypes (IEEE 802 numbers), and the protocol numbers of what is in IP.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// MACOf is the Ethernet address that the builders below give to an IP address:
// that of the group for multicast (RFC 1112, RFC 2464) and limited broadcast,
// and a made up one, 02:00 and the last four bytes, for a host.
func MACOf(addr netip.Addr) MAC {
	b := addr.AsSlice()
	last := b[len(b)-4:]
	switch {
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return BroadcastMAC
	case addr.IsMulticast() && addr.Is4():
		return MAC{0x01, 0x00, 0x5e, last[1] & 0x7f, last[2], last[3]}
	case addr.IsMulticast():
		return MAC{0x33, 0x33, last[0], last[1], last[2], last[3]}
	}
	return MAC{0x02, 0x00, last[0], last[1], last[2], last[3]}
}

// To returns a copy of the frame with another destination MAC.
func To(frame []byte, dst MAC) []byte {
	return slices.Concat(dst[:], frame[6:])
}

// Tagged returns a copy of the frame with a VLAN tag behind the MACs. tpid is
// 0x8100 or 0x88a8; the low 12 bits of tci are the VLAN identifier.
func Tagged(frame []byte, tpid, tci uint16) []byte {
	tag := binary.BigEndian.AppendUint16(nil, tpid)
	tag = binary.BigEndian.AppendUint16(tag, tci)
	return slices.Concat(frame[:12], tag, frame[12:])
}

// UDP4 is a UDP datagram over IPv4 over Ethernet.
func UDP4(src, dst netip.AddrPort, payload []byte) []byte {
	return ip(src.Addr(), dst.Addr(), protoUDP, udp(src, dst, payload))
}

// UDP6 is UDP4 over IPv6.
func UDP6(src, dst netip.AddrPort, payload []byte) []byte { return UDP4(src, dst, payload) }

// Flags of TCP segments (RFC 9293).
const (
	FIN = 0x01
	SYN = 0x02
	ACK = 0x10
)

// TCP4 is a TCP segment over IPv4 over Ethernet.
func TCP4(src, dst netip.AddrPort, flags byte, payload []byte) []byte {
	return ip(src.Addr(), dst.Addr(), protoTCP, tcp(src, dst, flags, payload))
}

// TCP6 is TCP4 over IPv6.
func TCP6(src, dst netip.AddrPort, flags byte, payload []byte) []byte {
	return TCP4(src, dst, flags, payload)
}

// Operations of ARP and RARP (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARP says or asks, of IPv4 over Ethernet, where tpa is, for spa.
func ARP(op uint16, spa, tpa netip.Addr, dst MAC) []byte {
	src, target := MACOf(spa), MACOf(tpa)
	if op == ARPRequest {
		target = MAC{}
	}
	b := []byte{0, 1, 0x08, 0x00, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = slices.Concat(b, src[:], spa.AsSlice(), target[:], tpa.AsSlice())
	return Ethernet(src, dst, etherARP, b)
}

// NeighborSolicit asks for the MAC of target (RFC 4861), at its solicited-node
// multicast address.
func NeighborSolicit(src, target netip.Addr) []byte {
	t := target.As16()
	group := netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]})
	return neighbor(src, group, 135, 0, target, 1, MACOf(src))
}

// NeighborAdvert tells dst the MAC of src.
func NeighborAdvert(src, dst netip.Addr) []byte {
	const solicited, override = 0x40, 0x20
	return neighbor(src, dst, 136, solicited|override, src, 2, MACOf(src))
}

// neighbor is a neighbour discovery message with one link-layer address option.
func neighbor(src, dst netip.Addr, icmpType, flags byte, target netip.Addr, option byte, mac MAC) []byte {
	b := slices.Concat([]byte{icmpType, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice(), []byte{option, 1}, mac[:])
	binary.BigEndian.PutUint16(b[2:], transportChecksum(src, dst, protoICMPv6, b))
	return ip(src, dst, protoICMPv6, b)
}

// Ethernet puts an Ethernet header in front of a payload. Short frames are not
// padded.
func Ethernet(src, dst MAC, etherType uint16, payload []byte) []byte {
	b := slices.Concat(dst[:], src[:], binary.BigEndian.AppendUint16(nil, etherType))
	return append(b, payload...)
}

// ip is an Ethernet frame with an IP packet of the addresses' version. The hop
// limit is 255, which neighbour discovery asks for.
func ip(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() {
		return Ethernet(MACOf(src), MACOf(dst), etherIPv4, append(ipv4(src, dst, proto, len(payload)), payload...))
	}
	b := []byte{0x60, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = slices.Concat(append(b, proto, 255), src.AsSlice(), dst.AsSlice(), payload)
	return Ethernet(MACOf(src), MACOf(dst), etherIPv6, b)
}

// ipv4 is an IPv4 header (RFC 791) for so many bytes of payload.
func ipv4(src, dst netip.Addr, proto byte, payload int) []byte {
	b := []byte{0x45, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(20+payload))
	b = append(b, 0, 0, 0, 0, 255, proto, 0, 0)
	b = slices.Concat(b, src.AsSlice(), dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return b
}

func udp(src, dst netip.AddrPort, payload []byte) []byte {
	b := ports(src, dst)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(append(b, 0, 0), payload...)
	sum := transportChecksum(src.Addr(), dst.Addr(), protoUDP, b)
	if sum == 0 { // RFC 768: 0 says that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

func tcp(src, dst netip.AddrPort, flags byte, payload []byte) []byte {
	b := ports(src, dst)
	b = binary.BigEndian.AppendUint32(b, 1)            // sequence number
	b = append(b, 0, 0, 0, 0, 5<<4, flags, 0xff, 0xff) // acknowledgment, offset, flags, window
	b = append(append(b, 0, 0, 0, 0), payload...)      // checksum, urgent pointer
	binary.BigEndian.PutUint16(b[16:], transportChecksum(src.Addr(), dst.Addr(), protoTCP, b))
	return b
}

func ports(src, dst netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src.Port()), dst.Port())
}

// transportChecksum is the checksum over a segment, whose own checksum field
// is 0, and the pseudo-header (RFC 768, RFC 8200 section 8.1).
func transportChecksum(src, dst netip.Addr, proto byte, segment []byte) uint16 {
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{0, proto})
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(segment)))
	return checksum(append(pseudo, segment...))
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
