package packetline

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/gopacket/gopacket/layers"
)

// A datagram is what the printers of transport protocols know of the IP packet
// around them.
type datagram struct {
	src, dst netip.Addr
	length   int // of the payload, as the IP header says

	extensions string // of IPv6, as tcpdump names them, each with a space behind it
}

func (p *Printer) ipv4(b, data []byte) []byte {
	ip := &p.ip4
	if ip.DecodeFromBytes(data, feedback) != nil {
		return append(b, "[|ip]"...)
	}
	if p.Verbose {
		b = p.ipv4Header(b)
	}
	d := datagram{length: int(ip.Length) - 4*int(ip.IHL)}
	d.src, _ = netip.AddrFromSlice(ip.SrcIP)
	d.dst, _ = netip.AddrFromSlice(ip.DstIP)
	if ip.FragOffset != 0 {
		return fmt.Appendf(d.appendHosts(b), "ip-proto-%d", uint8(ip.Protocol))
	}
	return p.transport(b, d, ip.Protocol, ip.Payload)
}

func (p *Printer) ipv4Header(b []byte) []byte {
	ip := &p.ip4
	flags := "none"
	switch {
	case ip.Flags&layers.IPv4DontFragment != 0:
		flags = "DF"
	case ip.Flags&layers.IPv4MoreFragments != 0:
		flags = "+"
	}
	return fmt.Appendf(b, "(tos 0x%x, ttl %d, id %d, offset %d, flags [%s], proto %s (%d), length %d) ",
		ip.TOS, ip.TTL, ip.Id, int(ip.FragOffset)*8, flags, protocolName(ip.Protocol), uint8(ip.Protocol), ip.Length)
}

// ipv6 reads the header itself: gopacket's decoder allocates for extensions.
func (p *Printer) ipv6(b, data []byte) []byte {
	if len(data) < 40 {
		return append(b, "[|ip6]"...)
	}
	next := layers.IPProtocol(data[6])
	d := datagram{length: int(binary.BigEndian.Uint16(data[4:]))}
	d.src, _ = netip.AddrFromSlice(data[8:24])
	d.dst, _ = netip.AddrFromSlice(data[24:40])
	if p.Verbose {
		b = append(b, '(')
		if class := binary.BigEndian.Uint16(data) >> 4 & 0xff; class != 0 {
			b = fmt.Appendf(b, "class 0x%02x, ", class)
		}
		if label := binary.BigEndian.Uint32(data) & 0xfffff; label != 0 {
			b = fmt.Appendf(b, "flowlabel 0x%05x, ", label)
		}
		b = fmt.Appendf(b, "hlim %d, next-header %s (%d) payload length: %d) ", data[7], protocolName(next), uint8(next), d.length)
	}
	payload := data[40:]
	if d.length == 0 { // a jumbogram, or what a network card will cut up
		d.length = len(payload)
	}
	return p.extensions(b, d, next, payload[:min(len(payload), d.length)])
}

// extensions walks the extension headers of IPv6 (RFC 8200) to the transport
// header.
func (p *Printer) extensions(b []byte, d datagram, next layers.IPProtocol, data []byte) []byte {
	for {
		size := 8
		switch next {
		case layers.IPProtocolIPv6HopByHop:
			d.extensions += "HBH "
		case layers.IPProtocolIPv6Destination:
			d.extensions += "DSTOPT "
		case layers.IPProtocolIPv6Routing:
			d.extensions += "RT "
		case layers.IPProtocolIPv6Fragment:
		default:
			return p.transport(b, d, next, data)
		}
		if len(data) < 8 {
			return append(d.appendHosts(b), "[|ext]"...)
		}
		if next == layers.IPProtocolIPv6Fragment {
			offset := int(binary.BigEndian.Uint16(data[2:]) &^ 7)
			d.extensions += fmt.Sprintf("frag (%d|%d) ", offset, d.length-8)
			if offset != 0 {
				b = d.appendHosts(b)
				return b[:len(b)-1]
			}
		} else {
			size += 8 * int(data[1])
		}
		next = layers.IPProtocol(data[0])
		d.length -= size
		data = data[min(size, len(data)):]
	}
}

// appendHosts prints the addresses of a packet without ports.
func (d *datagram) appendHosts(b []byte) []byte {
	b = append(d.src.AppendTo(b), " > "...)
	b = append(d.dst.AppendTo(b), ": "...)
	return append(b, d.extensions...)
}

func (d *datagram) appendPorts(b []byte, src, dst uint16) []byte {
	b = strconv.AppendUint(append(d.src.AppendTo(b), '.'), uint64(src), 10)
	b = append(d.dst.AppendTo(append(b, " > "...)), '.')
	b = append(strconv.AppendUint(b, uint64(dst), 10), ": "...)
	return append(b, d.extensions...)
}
