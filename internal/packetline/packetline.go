// Package packetline prints packets in tcpdump's manner, one line a packet:
//
//	12:34:56.789012 IP 10.0.0.1.80 > 10.0.0.2.1234: Flags [S.], seq 7, ack 2, win 64240, length 0
//
// Addresses and ports are always numbers. Where tcpdump prints nothing about a
// VLAN tag without -e, these lines do, since another VLAN is another network.
package packetline

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A Printer makes lines. It is not safe for concurrent use: it remembers where
// the sequence numbers of TCP connections began.
type Printer struct {
	Quiet   bool // less about the protocol
	Verbose bool // the IP header's fields too

	// InterfaceName names an interface of a LINUX_SLL2 frame by its index; nil
	// or "" as the answer: it is printed as a number.
	InterfaceName func(index uint32) string

	flows flows

	arp    layers.ARP
	ip4    layers.IPv4
	tcp    layers.TCP
	udp    layers.UDP
	tagged layers.Dot1Q
}

// feedback is what gopacket's decoders want to tell that a packet is cut.
var feedback = gopacket.NilDecodeFeedback

// Append adds the line of one packet to b, without a line feed. The frame
// starts with a header of the LINKTYPE linkType and had length bytes on the wire.
func (p *Printer) Append(b []byte, t time.Time, linkType uint32, frame []byte, length int) []byte {
	b = t.AppendFormat(b, "15:04:05.000000 ")
	switch linkType {
	case 1:
		return p.ethernet(b, frame, length)
	case 0, 108:
		return p.loopback(b, linkType, frame, length)
	case 12, 101, 228, 229:
		return p.rawIP(b, frame, length)
	case 113:
		return p.cooked(b, frame, length)
	case 276:
		return p.cooked2(b, frame, length)
	}
	return fmt.Appendf(b, "link type %d, length %d", linkType, length)
}

func (p *Printer) ethernet(b, frame []byte, length int) []byte {
	if len(frame) < 14 {
		return append(b, "[|ether]"...)
	}
	etherType := binary.BigEndian.Uint16(frame[12:])
	at := len(b)
	if b, ok := p.network(b, etherType, frame[14:], length-14); ok {
		return b
	}
	b = appendMAC(b[:at], frame[6:12])
	b = append(b, " > "...)
	b = appendMAC(b, frame[:6])
	if etherType < 0x600 { // IEEE 802.3: a length
		return fmt.Appendf(b, ", 802.3, length %d", length)
	}
	return fmt.Appendf(b, ", ethertype 0x%04x, length %d", etherType, length)
}

func (p *Printer) loopback(b []byte, linkType uint32, frame []byte, length int) []byte {
	if len(frame) < 4 {
		return append(b, "[|null]"...)
	}
	family := binary.BigEndian.Uint32(frame)
	if linkType == 0 && family > 0xffff { // byte order of the host that captured
		family = binary.LittleEndian.Uint32(frame)
	}
	switch family {
	case 2, 10, 24, 28, 30: // AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD, Darwin
		return p.rawIP(b, frame[4:], length-4)
	}
	return fmt.Appendf(b, "AF %d, length %d", family, length)
}

func (p *Printer) rawIP(b, frame []byte, length int) []byte {
	if len(frame) == 0 {
		return append(b, "[|ip]"...)
	}
	etherType := layers.EthernetTypeIPv4
	if frame[0]>>4 == 6 {
		etherType = layers.EthernetTypeIPv6
	}
	b, _ = p.network(b, uint16(etherType), frame, length)
	return b
}

// cooked is LINUX_SLL; like tcpdump, it leaves out the packet type.
func (p *Printer) cooked(b, frame []byte, length int) []byte {
	if len(frame) < 16 {
		return append(b, "[|sll]"...)
	}
	return p.cookedNetwork(b, binary.BigEndian.Uint16(frame[14:]), frame[16:], length-16)
}

// packetTypes are tcpdump's words for PACKET_HOST, _BROADCAST, _MULTICAST,
// _OTHERHOST and _OUTGOING (linux/if_packet.h).
var packetTypes = []string{"In ", "B  ", "M  ", "P  ", "Out"}

// cooked2 is LINUX_SLL2: interface and direction, then the packet.
func (p *Printer) cooked2(b, frame []byte, length int) []byte {
	if len(frame) < 20 {
		return append(b, "[|sll2]"...)
	}
	index := binary.BigEndian.Uint32(frame[4:])
	name := ""
	if p.InterfaceName != nil {
		name = p.InterfaceName(index)
	}
	if name == "" {
		b = fmt.Appendf(b, "ifindex %d ", index)
	} else {
		b = append(b, name...)
		for range 5 - len(name) {
			b = append(b, ' ')
		}
		b = append(b, ' ')
	}
	if kind := int(frame[10]); kind < len(packetTypes) {
		b = append(b, packetTypes[kind]...)
	} else {
		b = append(b, "?  "...)
	}
	return p.cookedNetwork(append(b, ' '), binary.BigEndian.Uint16(frame), frame[20:], length-20)
}

func (p *Printer) cookedNetwork(b []byte, etherType uint16, data []byte, length int) []byte {
	at := len(b)
	b, ok := p.network(b, etherType, data, length)
	if ok {
		return b
	}
	return fmt.Appendf(b[:at], "ethertype 0x%04x, length %d", etherType, length)
}

// network prints what is behind a link-level header. It is not ok if the
// EtherType is not known.
func (p *Printer) network(b []byte, etherType uint16, data []byte, length int) (line []byte, ok bool) {
	switch layers.EthernetType(etherType) {
	case layers.EthernetTypeIPv4:
		return p.ipv4(append(b, "IP "...), data), true
	case layers.EthernetTypeIPv6:
		return p.ipv6(append(b, "IP6 "...), data), true
	case layers.EthernetTypeARP, etherRARP:
		return p.arpPacket(append(b, "ARP, "...), data, length), true
	case layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ:
		if p.tagged.DecodeFromBytes(data, feedback) != nil {
			return append(b, "[|vlan]"...), true
		}
		b = fmt.Appendf(b, "vlan %d, p %d, ", p.tagged.VLANIdentifier, p.tagged.Priority)
		if p.tagged.DropEligible {
			b = append(b, "DEI, "...)
		}
		inner := uint16(p.tagged.Type)
		if line, ok := p.network(b, inner, data[4:], length-4); ok {
			return line, true
		}
		return fmt.Appendf(b, "ethertype 0x%04x, length %d", inner, length-4), true
	}
	return b, false
}

func appendMAC(b, mac []byte) []byte {
	const digits = "0123456789abcdef"
	for i, x := range mac {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, digits[x>>4], digits[x&15])
	}
	return b
}
