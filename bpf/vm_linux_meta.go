package bpf

import "encoding/binary"

// Metadata is what Linux knows of a packet besides its bytes: fields of struct
// sk_buff (linux/skbuff.h), in the host's byte order. FreeBSD has none of it.
type Metadata struct {
	Protocol   uint16 // EtherType
	PktType    uint8  // PACKET_* of linux/if_packet.h; 0 is PACKET_HOST
	Ifindex    uint32 // of the device
	Hatype     uint16 // ARPHRD_* of the device; Ifindex and Hatype 0: no device
	VLANTag    uint16 // TCI of the tag that was taken out of the frame; 0 if none
	VLANTagged bool
	VLANTPID   uint16
	Mark       uint32
	Queue      uint32
	RxHash     uint32
	CPU        uint32
	Random     uint32

	// NetOff is where in the packet's data loads from SKF_NET_OFF start: the
	// network header. Loads from SKF_LL_OFF start at 0, unless NetOff is 0 too:
	// then there is no link header, and they fail.
	NetOff uint32
}

func (m *Metadata) hasDevice() bool { return m.Ifindex != 0 || m.Hatype != 0 }

// offset turns the offset of a load into one in the packet's data
// (bpf_skb_load_helper_convert_offset of net/core/filter.c).
func (m *Metadata) offset(off uint32) uint64 {
	switch {
	case off < 1<<31:
		return uint64(off)
	case off >= skfNetOff:
		return uint64(m.NetOff) + uint64(off-skfNetOff)
	case off >= skfLLOff && m.NetOff != 0:
		return uint64(off - skfLLOff)
	default:
		return nowhere
	}
}

// ancillary is A after an absolute load of metadata (convert_bpf_extensions of
// net/core/filter.c), for packets that have a device.
//
// SKF_AD_PAY_OFFSET gives 0, as the kernel does for protocols that its flow
// dissector does not know: the VM has no flow dissector.
func (pkt *Packet) ancillary(k, a, x uint32) uint32 {
	m := &pkt.Meta
	switch k {
	case adProtocol:
		return uint32(m.Protocol)
	case adPktType:
		return uint32(m.PktType)
	case adIfindex:
		return m.Ifindex
	case adNlattr:
		return pkt.nlattr(a, x)
	case adNlattrNest:
		return pkt.nlattrNest(a, x)
	case adMark:
		return m.Mark
	case adQueue:
		return m.Queue
	case adHatype:
		return uint32(m.Hatype)
	case adRxhash:
		return m.RxHash
	case adCPU:
		return m.CPU
	case adAluXorX:
		return a ^ x
	case adVlanTag:
		return uint32(m.VLANTag)
	case adVlanTagged:
		if m.VLANTagged {
			return 1
		}
		return 0
	case adRandom:
		return m.Random
	case adVlanTPID:
		return uint32(m.VLANTPID)
	default:
		return 0
	}
}

// Netlink attributes (struct nlattr of linux/netlink.h): length with header,
// type, payload, padding to 4 bytes; numbers in the host's byte order.
const (
	nlaHeader   = 4
	nlaTypeMask = 0x3fff // NLA_TYPE_MASK
)

// nlattr is the offset of the first attribute of type x, from the one at
// offset a on, or 0 (bpf_skb_get_nlattr).
func (pkt *Packet) nlattr(a, x uint32) uint32 {
	return findAttr(pkt.Data, uint64(a), uint64(len(pkt.Data)), x)
}

// nlattrNest is the same inside the attribute at offset a
// (bpf_skb_get_nlattr_nest).
func (pkt *Packet) nlattrNest(a, x uint32) uint32 {
	start, size := uint64(a), uint64(len(pkt.Data))
	if start+nlaHeader > size {
		return 0
	}
	end := start + uint64(binary.NativeEndian.Uint16(pkt.Data[start:]))
	if end > size {
		return 0
	}
	return findAttr(pkt.Data, start+nlaHeader, end, x)
}

// findAttr is nla_find on data[off:end].
func findAttr(data []byte, off, end uint64, typ uint32) uint32 {
	for off+nlaHeader <= end {
		size := uint64(binary.NativeEndian.Uint16(data[off:]))
		if size < nlaHeader || off+size > end {
			break
		}
		if uint32(binary.NativeEndian.Uint16(data[off+2:])&nlaTypeMask) == typ {
			return uint32(off)
		}
		off += (size + 3) &^ 3
	}
	return 0
}
