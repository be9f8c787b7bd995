package packetline

import (
	"net/netip"

	"github.com/gopacket/gopacket/layers"
)

// A flow is a TCP connection, seen from its end with the lower address.
type flow struct{ low, high netip.AddrPort }

// An origin is where sequence numbers of a connection began, for one direction:
// they are printed relative to it.
type origin struct{ seq, ack uint32 }

// flows are the connections seen, at most maxFlows of them.
type flows map[flow]origin

const maxFlows = 1 << 16

// origin finds, or records from its first acknowledging segment, where a
// segment's numbers count from. As in tcpdump, that segment itself, and those
// without an acknowledgment, are printed with their own numbers.
func (f *flows) origin(d *datagram, t *layers.TCP) origin {
	if !t.ACK {
		return origin{}
	}
	src, dst := netip.AddrPortFrom(d.src, uint16(t.SrcPort)), netip.AddrPortFrom(d.dst, uint16(t.DstPort))
	key, reversed := flow{src, dst}, src.Compare(dst) > 0
	if reversed {
		key = flow{dst, src}
	}
	o, known := (*f)[key]
	if !known || t.SYN {
		o = origin{t.Seq, t.Ack - 1}
		if reversed {
			o = origin{o.ack, o.seq}
		}
		if *f == nil || len(*f) >= maxFlows {
			*f = make(flows)
		}
		(*f)[key] = o
		return origin{}
	}
	if reversed {
		o = origin{o.ack, o.seq}
	}
	return o
}
