package loader

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// frames turns records of the ring into frames as a capture file holds them,
// without copying them.
type frames struct {
	linkType  bpf.LinkType
	direction Direction
	snaplen   int

	// program is the user's, if it runs here and not in the kernel; about
	// frames that the kernel found to be in scope.
	program bpf.Program
	matched atomic.Uint64 // frames that it took
}

// read makes p the frame of a record, and reports whether it is wanted. Being run for
// each packet, it calls nothing for those that are as they should be.
func (f *frames) read(rec record, p *Packet) bool {
	h, from := rec.header(), rec.address()
	outgoing := from.Pkttype == unix.PACKET_OUTGOING
	if (outgoing || f.direction == Out) && !f.wanted(outgoing, from.Hatype) {
		return false
	}
	data, added := rec[h.Mac:int(h.Mac)+int(h.Snaplen)], 0
	if f.linkType == bpf.LinuxSLL2 || h.Status&unix.TP_STATUS_VLAN_VALID != 0 {
		data, added = f.complete(rec, h, from)
	}
	if h.Snaplen < h.Len { // the filter's verdict, which counts what has been put back
		data = data[:h.Snaplen]
	}
	p.Time = time.Unix(int64(h.Sec), int64(h.Nsec))
	p.Data = data[:min(len(data), f.snaplen)]
	p.Len = int(h.Len) + added
	p.Outgoing = outgoing
	return f.program == nil || f.match(p, data, from)
}

func (f *frames) wanted(outgoing bool, hatype uint16) bool {
	switch f.direction {
	case In:
		return !outgoing
	case Out:
		return outgoing
	}
	return !outgoing || hatype != unix.ARPHRD_LOOPBACK // it comes again, as received
}

// complete puts back what the kernel has taken out of the frame, into the room
// before it. added says how many bytes those are.
func (f *frames) complete(r record, h *unix.Tpacket3Hdr, from *unix.RawSockaddrLinklayer) (frame []byte, added int) {
	start, end := int(h.Mac), int(h.Mac)+int(h.Snaplen)
	switch {
	case f.linkType == bpf.LinuxSLL2:
		start -= sll2Len
		putSLL2(r[start:], from)
	case f.linkType == bpf.Ethernet && h.Status&unix.TP_STATUS_VLAN_VALID != 0 && h.Snaplen >= macsLen:
		start -= tagLen
		tpid := uint16(unix.ETH_P_8021Q)
		if h.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 { // Linux 3.14
			tpid = h.Hv1.Vlan_tpid
		}
		putTag(r[start:], tpid, uint16(h.Hv1.Vlan_tci))
	}
	return r[start:end], int(h.Mac) - start
}

const (
	macsLen = 12 // destination and source
	tagLen  = 4  // TPID and TCI
	sll2Len = 20
)

// putTag moves the MACs to the start of b, from tagLen behind it, and puts the
// VLAN tag between them and the EtherType.
func putTag(b []byte, tpid, tci uint16) {
	copy(b, b[tagLen:tagLen+macsLen])
	binary.BigEndian.PutUint16(b[macsLen:], tpid)
	binary.BigEndian.PutUint16(b[macsLen+2:], tci)
}

// putSLL2 writes the header of LINKTYPE_LINUX_SLL2: all numbers in network byte
// order. As libpcap does, it leaves out VLAN tags.
func putSLL2(b []byte, from *unix.RawSockaddrLinklayer) {
	binary.NativeEndian.PutUint16(b[0:], from.Protocol) // is in network order
	binary.BigEndian.PutUint16(b[2:], 0)
	binary.BigEndian.PutUint32(b[4:], uint32(from.Ifindex))
	binary.BigEndian.PutUint16(b[8:], from.Hatype)
	b[10] = from.Pkttype
	b[11] = from.Halen
	copy(b[12:sll2Len], from.Addr[:])
}

// match runs the user's program on the frame, with its metadata, and cuts the
// packet to its verdict.
func (f *frames) match(p *Packet, frame []byte, from *unix.RawSockaddrLinklayer) bool {
	verdict := bpf.VM{Dialect: bpf.Linux}.Run(f.program, bpf.Packet{
		Data:    frame,
		WireLen: uint32(p.Len),
		Meta: bpf.Metadata{
			Protocol: networkOrder(from.Protocol),
			PktType:  from.Pkttype,
			Ifindex:  uint32(from.Ifindex),
			Hatype:   from.Hatype,
		},
	})
	if verdict == 0 {
		return false
	}
	f.matched.Add(1)
	p.Data = p.Data[:min(uint64(len(p.Data)), uint64(verdict))]
	return true
}

// matchedHere is how many frames the user's program took, if it runs here.
func (f *frames) matchedHere() (n uint64, ok bool) { return f.matched.Load(), f.program != nil }
