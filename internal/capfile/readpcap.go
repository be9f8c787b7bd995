package capfile

import "time"

// linkTypeMask takes off the bits about frame check sequences that stand
// above the link type in a pcap header.
const linkTypeMask = 0x03ffffff

func (r *Reader) readPcapHeader() error {
	h, err := r.take(0, pcapHeaderLen)
	if err != nil {
		return err
	}
	if major := r.order.Uint16(h[4:]); major != 2 {
		return r.errorf("pcap version %d.%d is not known", major, r.order.Uint16(h[6:]))
	}
	r.nano = r.order.Uint32(h) == magicNano
	r.first = Interface{SnapLen: r.order.Uint32(h[16:]), LinkType: r.order.Uint32(h[20:]) & linkTypeMask}
	return nil
}

func (r *Reader) nextPcap() (Packet, error) {
	h, err := r.take(0, pcapRecordLen)
	if err != nil {
		return Packet{}, err
	}
	seconds, fraction := r.order.Uint32(h), int64(r.order.Uint32(h[4:]))
	kept, length := r.order.Uint32(h[8:]), r.order.Uint32(h[12:])
	if kept > maxRecord {
		return Packet{}, r.errorf("packet of %d bytes", kept)
	}
	data, err := r.take(pcapRecordLen, int(kept))
	if err != nil {
		return Packet{}, err
	}
	if !r.nano {
		fraction *= 1000
	}
	return Packet{
		Time:      time.Unix(int64(seconds), fraction),
		Data:      data[pcapRecordLen:],
		Len:       int(max(length, kept)),
		Interface: &r.first,
	}, nil
}
