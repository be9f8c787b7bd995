package packetline

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/gopacket/gopacket/layers"
)

func (p *Printer) transport(b []byte, d datagram, protocol layers.IPProtocol, data []byte) []byte {
	switch protocol {
	case layers.IPProtocolTCP:
		return p.tcpSegment(b, d, data)
	case layers.IPProtocolUDP:
		return p.udpDatagram(b, d, data)
	case layers.IPProtocolICMPv4:
		return icmp(d.appendHosts(b), d, data)
	case layers.IPProtocolICMPv6:
		return icmp6(d.appendHosts(b), d, data)
	}
	return fmt.Appendf(d.appendHosts(b), "ip-proto-%d %d", uint8(protocol), d.length)
}

// protocolName is tcpdump's name for a protocol number, in capitals.
func protocolName(protocol layers.IPProtocol) string {
	switch protocol {
	case layers.IPProtocolTCP:
		return "TCP"
	case layers.IPProtocolUDP:
		return "UDP"
	case layers.IPProtocolICMPv4:
		return "ICMP"
	case layers.IPProtocolICMPv6:
		return "ICMPv6"
	case layers.IPProtocolIPv6HopByHop:
		return "Options"
	}
	return "unknown"
}

func (p *Printer) udpDatagram(b []byte, d datagram, data []byte) []byte {
	if p.udp.DecodeFromBytes(data, feedback) != nil {
		return append(d.appendHosts(b), "[|udp]"...)
	}
	b = d.appendPorts(b, uint16(p.udp.SrcPort), uint16(p.udp.DstPort))
	return strconv.AppendInt(append(b, "UDP, length "...), int64(p.udp.Length)-8, 10)
}

func (p *Printer) tcpSegment(b []byte, d datagram, data []byte) []byte {
	t := &p.tcp
	if t.DecodeFromBytes(data, feedback) != nil {
		return append(d.appendHosts(b), "[|tcp]"...)
	}
	b = d.appendPorts(b, uint16(t.SrcPort), uint16(t.DstPort))
	length := d.length - 4*int(t.DataOffset)
	if p.Quiet {
		return strconv.AppendInt(append(b, "tcp "...), int64(length), 10)
	}
	origin := p.flows.origin(&d, t)
	seq, ack := t.Seq-origin.seq, t.Ack-origin.ack

	b = append(appendFlags(append(b, "Flags ["...), data[13]), ']')
	if length > 0 || t.SYN || t.FIN || t.RST {
		b = strconv.AppendUint(append(b, ", seq "...), uint64(seq), 10)
		if length > 0 {
			b = strconv.AppendUint(append(b, ':'), uint64(seq+uint32(length)), 10)
		}
	}
	if t.ACK {
		b = strconv.AppendUint(append(b, ", ack "...), uint64(ack), 10)
	}
	b = strconv.AppendUint(append(b, ", win "...), uint64(t.Window), 10)
	if t.URG {
		b = strconv.AppendUint(append(b, ", urg "...), uint64(t.Urgent), 10)
	}
	if len(t.Options) > 0 {
		b = append(appendOptions(append(b, ", options ["...), t.Options, origin.ack), ']')
	}
	return strconv.AppendInt(append(b, ", length "...), int64(length), 10)
}

// appendFlags prints the flags of a TCP header in tcpdump's order and letters.
func appendFlags(b []byte, flags byte) []byte {
	if flags == 0 {
		return append(b, "none"...)
	}
	for i, letter := range []byte("FSRP.UEW") { // from bit 0 up
		if flags>>i&1 != 0 {
			b = append(b, letter)
		}
	}
	return b
}

// appendOptions prints TCP options. ack is where the numbers of the other
// direction, that of selective acknowledgments, began.
func appendOptions(b []byte, options []layers.TCPOption, ack uint32) []byte {
	for i, o := range options {
		if i > 0 {
			b = append(b, ',')
		}
		v := o.OptionData
		switch {
		case o.OptionType == layers.TCPOptionKindEndList:
			b = append(b, "eol"...)
		case o.OptionType == layers.TCPOptionKindNop:
			b = append(b, "nop"...)
		case o.OptionType == layers.TCPOptionKindMSS && len(v) == 2:
			b = fmt.Appendf(b, "mss %d", binary.BigEndian.Uint16(v))
		case o.OptionType == layers.TCPOptionKindWindowScale && len(v) == 1:
			b = fmt.Appendf(b, "wscale %d", v[0])
		case o.OptionType == layers.TCPOptionKindSACKPermitted:
			b = append(b, "sackOK"...)
		case o.OptionType == layers.TCPOptionKindSACK && len(v)%8 == 0:
			b = fmt.Appendf(b, "sack %d ", len(v)/8)
			for ; len(v) >= 8; v = v[8:] {
				b = fmt.Appendf(b, "{%d:%d}", binary.BigEndian.Uint32(v)-ack, binary.BigEndian.Uint32(v[4:])-ack)
			}
		case o.OptionType == layers.TCPOptionKindTimestamps && len(v) == 8:
			b = strconv.AppendUint(append(b, "TS val "...), uint64(binary.BigEndian.Uint32(v)), 10)
			b = strconv.AppendUint(append(b, " ecr "...), uint64(binary.BigEndian.Uint32(v[4:])), 10)
		default:
			b = fmt.Appendf(b, "unknown-%d", uint8(o.OptionType))
		}
	}
	return b
}
