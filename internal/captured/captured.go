// Package captured has what a capture reads and a capture file holds, so that many
// packets at a time can go from the one to the other as they are.
package captured

import "time"

// A Packet is one frame.
type Packet struct {
	Time     time.Time
	Data     []byte // as in a capture file; valid as long as whoever hands it on says, and not to be changed
	Len      int    // bytes on the wire, and of the cooked header
	Outgoing bool   // sent by this host, not received; FreeBSD tells only with Direction Out
}

// Packets are to be taken one after another. Where a packet is written as soon as its
// frame has been found, the processor fetches the one and the next at once: that is
// quicker than to find many first.
type Packets interface {
	// Next makes *p the next packet, and reports whether there was one.
	Next(p *Packet) bool
}

// A List is Packets out of a slice.
type List []Packet

func (l *List) Next(p *Packet) bool {
	if len(*l) == 0 {
		return false
	}
	*p, *l = (*l)[0], (*l)[1:]
	return true
}
