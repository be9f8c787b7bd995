// Package capfile reads and writes capture files: pcap, as tcpdump writes it,
// and pcapng, with the blocks that Wireshark's dumpcap writes.
//
// Link types are the 32-bit LINKTYPE numbers of the files, so that
// LINUX_SLL2, 276, has room; gopacket/pcapgo keeps 8 bits of them.
//
// Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
package capfile

import (
	"fmt"
	"strings"
	"time"
)

// A Format is one of the two file formats.
type Format uint8

const (
	PcapNG Format = iota
	Pcap
)

func (f Format) String() string {
	if f == Pcap {
		return "pcap"
	}
	return "pcapng"
}

// ParseFormat is the inverse of Format.String.
func ParseFormat(name string) (Format, error) {
	switch name {
	case "pcapng":
		return PcapNG, nil
	case "pcap":
		return Pcap, nil
	}
	return 0, fmt.Errorf("unknown file format %q: known are pcapng and pcap", name)
}

// FormatOf chooses the format by a file's name: pcap for NAME.pcap, else pcapng.
func FormatOf(name string) Format {
	if strings.HasSuffix(name, ".pcap") {
		return Pcap
	}
	return PcapNG
}

// An Interface is where packets were captured. Of a pcap file, which has one,
// only LinkType and SnapLen are known.
type Interface struct {
	LinkType    uint32 // LINKTYPE number
	SnapLen     uint32 // bytes kept of a packet at most; 0: no limit
	Name        string
	Filter      string
	Description string
}

// A Packet is one packet of a file.
type Packet struct {
	Time      time.Time // 1970 if the file does not say (simple packet blocks)
	Data      []byte    // what was kept of it
	Len       int       // bytes on the wire
	Interface *Interface
}

// A FormatError says at which byte of a file something is wrong.
type FormatError struct {
	Offset int64 // of the record or block
	Reason string
	Err    error // io.ErrUnexpectedEOF where the file ends too early, or nil
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("bad capture file: at byte %d: %s", e.Offset, e.Reason)
}

func (e *FormatError) Unwrap() error { return e.Err }

// Magic numbers of pcap files as their writer's byte order has them.
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
)

const (
	pcapHeaderLen = 24
	pcapRecordLen = 16
)

// Block types of pcapng.
const (
	blockSection    = 0x0a0d0d0a // the same in both byte orders
	blockInterface  = 1
	blockPacket     = 2 // obsolete, with a 16-bit interface number and a drop count
	blockSimple     = 3
	blockStatistics = 5
	blockEnhanced   = 6
)

// byteOrderMagic stands at the start of a section.
const byteOrderMagic = 0x1a2b3c4d

// Options of pcapng blocks.
const (
	optEnd = 0

	optSectionOS          = 3
	optSectionApplication = 4

	optInterfaceName        = 2
	optInterfaceDescription = 3
	optInterfaceTsresol     = 9
	optInterfaceFilter      = 11
	optInterfaceTsoffset    = 14

	optStatsStart        = 2
	optStatsEnd          = 3
	optStatsReceived     = 4 // isb_ifrecv
	optStatsDropped      = 5 // isb_ifdrop
	optStatsFilterAccept = 6
	optStatsOSDrop       = 7
)

// maxRecord is the most bytes that a record or block may have. Larger numbers
// come from files that are damaged.
const maxRecord = 16 << 20
