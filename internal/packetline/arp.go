package packetline

import (
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket/layers"
)

const etherRARP = 0x8035

// arpPacket prints ARP and RARP of IPv4 over Ethernet (RFC 826, RFC 903).
func (p *Printer) arpPacket(b, data []byte, length int) []byte {
	a := &p.arp
	// gopacket's decoder takes the lengths of addresses on trust.
	if len(data) < 8 || len(data) < 8+2*(int(data[4])+int(data[5])) || a.DecodeFromBytes(data, feedback) != nil {
		return append(b, "[|arp]"...)
	}
	if a.Protocol != layers.EthernetTypeIPv4 || a.ProtAddressSize != 4 || a.HwAddressSize != 6 {
		return fmt.Appendf(b, "hardware %d, protocol 0x%04x, operation %d, length %d", a.AddrType, uint16(a.Protocol), a.Operation, length)
	}
	if p.Verbose {
		b = append(b, "Ethernet (len 6), IPv4 (len 4), "...)
	}
	switch a.Operation {
	case 1:
		b = appendIP(append(b, "Request who-has "...), a.DstProtAddress)
		if !allZero(a.DstHwAddress) {
			b = append(appendMAC(append(b, " ("...), a.DstHwAddress), ')')
		}
		b = appendIP(append(b, " tell "...), a.SourceProtAddress)
	case 2:
		b = appendIP(append(b, "Reply "...), a.SourceProtAddress)
		b = appendMAC(append(b, " is-at "...), a.SourceHwAddress)
	case 3:
		b = appendMAC(append(b, "Reverse Request who-is "...), a.DstHwAddress)
		b = appendMAC(append(b, " tell "...), a.SourceHwAddress)
	case 4:
		b = appendMAC(append(b, "Reverse Reply "...), a.DstHwAddress)
		b = appendIP(append(b, " at "...), a.DstProtAddress)
	default:
		b = fmt.Appendf(b, "operation %d", a.Operation)
	}
	return fmt.Appendf(b, ", length %d", length)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func appendIP(b, ip []byte) []byte {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.AppendTo(b)
}
