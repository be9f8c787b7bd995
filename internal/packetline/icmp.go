package packetline

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket/layers"
)

// icmp prints ICMP for IPv4 (RFC 792).
func icmp(b []byte, d datagram, data []byte) []byte {
	if len(data) < 8 {
		return append(b, "[|icmp]"...)
	}
	b = append(b, "ICMP "...)
	kind, code := data[0], data[1]
	switch kind {
	case layers.ICMPv4TypeEchoRequest:
		b = appendEcho(append(b, "echo request"...), data)
	case layers.ICMPv4TypeEchoReply:
		b = appendEcho(append(b, "echo reply"...), data)
	case layers.ICMPv4TypeDestinationUnreachable:
		b = appendUnreachable(b, code, data)
	case layers.ICMPv4TypeTimeExceeded:
		if code == layers.ICMPv4CodeFragmentReassemblyTimeExceeded {
			b = append(b, "ip reassembly time exceeded"...)
		} else {
			b = append(b, "time exceeded in-transit"...)
		}
	default:
		b = fmt.Appendf(b, "type-#%d code %d", kind, code)
	}
	return fmt.Appendf(b, ", length %d", d.length)
}

func appendEcho(b, data []byte) []byte {
	return fmt.Appendf(b, ", id %d, seq %d", binary.BigEndian.Uint16(data[4:]), binary.BigEndian.Uint16(data[6:]))
}

// appendUnreachable names what the packet in the message wanted to reach.
func appendUnreachable(b []byte, code byte, data []byte) []byte {
	inner := data[8:]
	if len(inner) < 20 {
		return fmt.Appendf(b, "unreachable - #%d", code)
	}
	dst := netip.AddrFrom4([4]byte(inner[16:20]))
	switch code {
	case layers.ICMPv4CodeNet:
		return fmt.Appendf(b, "net %v unreachable", dst)
	case layers.ICMPv4CodeHost:
		return fmt.Appendf(b, "host %v unreachable", dst)
	case layers.ICMPv4CodeProtocol:
		return fmt.Appendf(b, "%v protocol %d unreachable", dst, inner[9])
	case layers.ICMPv4CodePort:
		header := 4 * int(inner[0]&15)
		name, ok := portProtocol(layers.IPProtocol(inner[9]))
		if !ok || len(inner) < header+4 {
			return fmt.Appendf(b, "%v protocol %d port unreachable", dst, inner[9])
		}
		return fmt.Appendf(b, "%v %s port %d unreachable", dst, name, binary.BigEndian.Uint16(inner[header+2:]))
	case layers.ICMPv4CodeFragmentationNeeded:
		return fmt.Appendf(b, "%v unreachable - need to frag (mtu %d)", dst, binary.BigEndian.Uint16(data[6:]))
	case layers.ICMPv4CodeCommAdminProhibited:
		return fmt.Appendf(b, "host %v unreachable - admin prohibited filter", dst)
	}
	return fmt.Appendf(b, "%v unreachable - #%d", dst, code)
}

func portProtocol(p layers.IPProtocol) (name string, ok bool) {
	switch p {
	case layers.IPProtocolTCP:
		return "tcp", true
	case layers.IPProtocolUDP:
		return "udp", true
	}
	return "", false
}

// icmp6 prints ICMP for IPv6 (RFC 4443) with neighbour discovery (RFC 4861).
func icmp6(b []byte, d datagram, data []byte) []byte {
	if len(data) < 8 {
		return append(b, "[|icmp6]"...)
	}
	b = append(b, "ICMP6, "...)
	switch kind := data[0]; kind {
	case layers.ICMPv6TypeEchoRequest:
		b = appendEcho(append(b, "echo request"...), data)
	case layers.ICMPv6TypeEchoReply:
		b = appendEcho(append(b, "echo reply"...), data)
	case layers.ICMPv6TypeRouterSolicitation:
		b = append(b, "router solicitation"...)
	case layers.ICMPv6TypeRouterAdvertisement:
		b = append(b, "router advertisement"...)
	case layers.ICMPv6TypeNeighborSolicitation:
		b = appendTarget(append(b, "neighbor solicitation, who has "...), data)
	case layers.ICMPv6TypeNeighborAdvertisement:
		b = appendTarget(append(b, "neighbor advertisement, tgt is "...), data)
	case layers.ICMPv6TypePacketTooBig:
		b = fmt.Appendf(b, "packet too big, mtu %d", binary.BigEndian.Uint32(data[4:]))
	case layers.ICMPv6TypeTimeExceeded:
		b = appendInner(append(b, "time exceeded in-transit"...), " for ", data)
	case layers.ICMPv6TypeDestinationUnreachable:
		b = appendUnreachable6(b, data)
	case layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2:
		b = fmt.Appendf(b, "multicast listener report v2, %d group record(s)", binary.BigEndian.Uint16(data[6:]))
	default:
		b = fmt.Appendf(b, "type-#%d code %d", kind, data[1])
	}
	return fmt.Appendf(b, ", length %d", d.length)
}

// appendTarget prints the target address of a neighbour discovery message.
func appendTarget(b, data []byte) []byte {
	if len(data) < 24 {
		return append(b, "[|icmp6]"...)
	}
	return appendIP(b, data[8:24])
}

// appendInner prints where the packet in an ICMPv6 message was sent to.
func appendInner(b []byte, before string, data []byte) []byte {
	if inner := data[8:]; len(inner) >= 40 {
		return appendIP(append(b, before...), inner[24:40])
	}
	return b
}

var unreachable6 = []string{"route", "prohibited", "beyond scope", "address", "port"}

func appendUnreachable6(b, data []byte) []byte {
	const port = 4
	code := int(data[1])
	if code >= len(unreachable6) {
		return fmt.Appendf(b, "destination unreachable, code %d", code)
	}
	b = fmt.Appendf(b, "destination unreachable, unreachable %s", unreachable6[code])
	if code != port {
		return appendInner(b, " ", data)
	}
	b = appendInner(b, ", ", data)
	if len(data) >= 8+44 {
		if name, ok := portProtocol(layers.IPProtocol(data[8+6])); ok {
			b = fmt.Appendf(b, " %s port %d", name, binary.BigEndian.Uint16(data[8+42:]))
		}
	}
	return b
}
