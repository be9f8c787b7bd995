// Package captured has what a capture reads and a capture file holds, so that many
// packets at a time can go from the one to the other as they are.
package captured

import "time"

// A Packet is one frame.
type Packet struct {
	Time     time.Time
	Data     []byte // as in a capture file; valid as long as whoever hands it on says
	Len      int    // bytes on the wire, and of the cooked header
	Outgoing bool   // sent by this host, not received; FreeBSD tells only with Direction Out
}
