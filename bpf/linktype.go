package bpf

import (
	"fmt"
	"strings"
)

// A LinkType says what a frame starts with. The numbers are libpcap's DLT_
// values; LINKTYPE_RAW in files (101) is Raw.
type LinkType uint32

const (
	Null      LinkType = 0   // 4 bytes: address family, byte order of the capturing host (read as little-endian)
	Ethernet  LinkType = 1   // EN10MB: IEEE 802.3
	Raw       LinkType = 12  // starts at the IP header
	Loop      LinkType = 108 // 4 bytes: address family, network byte order
	LinuxSLL  LinkType = 113 // Linux cooked capture, 16 bytes
	LinuxSLL2 LinkType = 276 // Linux cooked capture v2, 20 bytes
)

var linkTypeNames = map[LinkType]string{
	Null: "NULL", Ethernet: "EN10MB", Raw: "RAW", Loop: "LOOP", LinuxSLL: "LINUX_SLL", LinuxSLL2: "LINUX_SLL2",
}

func (lt LinkType) String() string {
	if name, ok := linkTypeNames[lt]; ok {
		return name
	}
	return fmt.Sprintf("DLT %d", uint32(lt))
}

// LinkTypes lists the link types that scopes are known for.
func LinkTypes() []LinkType {
	return []LinkType{Ethernet, Null, Loop, Raw, LinuxSLL, LinuxSLL2}
}

// ParseLinkType finds a link type by its name, in any case, with or without
// "DLT_" or "LINKTYPE_" in front.
func ParseLinkType(name string) (LinkType, error) {
	short := strings.ToUpper(name)
	short = strings.TrimPrefix(strings.TrimPrefix(short, "DLT_"), "LINKTYPE_")
	known := make([]string, 0, len(linkTypeNames))
	for _, lt := range LinkTypes() {
		if short == lt.String() {
			return lt, nil
		}
		known = append(known, lt.String())
	}
	return 0, fmt.Errorf("unknown link type %q: known are %s", name, strings.Join(known, ", "))
}

// FileLinkType turns the number in a capture file's header into a LinkType:
// there LINKTYPE_RAW is 101, whatever DLT_RAW is on the system.
func FileLinkType(n uint32) LinkType {
	if n == 101 {
		return Raw
	}
	return LinkType(n)
}

// FileNumber is the inverse of FileLinkType.
func (lt LinkType) FileNumber() uint32 {
	if lt == Raw {
		return 101
	}
	return uint32(lt)
}

// A View is how a program meets a frame.
type View struct {
	LinkType LinkType

	// Live says that the program is attached to a Linux packet socket, where
	// the frame is not yet what a capture file will hold: a VLAN tag stands in
	// metadata, and of a cooked frame (LinuxSLL2 on a SOCK_DGRAM socket) only
	// the part behind the cooked header is there, the rest being metadata too.
	Live bool
}

func (v View) String() string {
	if v.Live {
		return v.LinkType.String() + " (live)"
	}
	return v.LinkType.String()
}

// EtherTypes that scopes know (IEEE 802 numbers).
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIPv6 = 0x86dd
	etherCTag = 0x8100 // IEEE 802.1Q
	etherSTag = 0x88a8 // IEEE 802.1ad
)

// A layout is where a link type keeps what a scope looks at. Offsets are in
// bytes from the start of the frame; fields are big-endian but for Null's.
type layout struct {
	typeOff int // of the EtherType, or of the address family; -1: none (Raw)
	netOff  int // of the network header
	family  bool
	mac     bool // the frame starts with a destination MAC
	pktType load // the packet type of cooked frames; the zero load: none
}

// A load is a field of the frame as an absolute load reads it.
type load struct {
	op  uint16 // opLdW, opLdH or opLdB
	off uint32
}

var layouts = map[LinkType]layout{
	Ethernet:  {typeOff: 12, netOff: 14, mac: true},
	Null:      {typeOff: 0, netOff: 4, family: true},
	Loop:      {typeOff: 0, netOff: 4, family: true},
	Raw:       {typeOff: -1, netOff: 0},
	LinuxSLL:  {typeOff: 14, netOff: 16, pktType: load{opLdH, 0}},
	LinuxSLL2: {typeOff: 0, netOff: 20, pktType: load{opLdB, 10}},
}

// hasEtherType says whether frames carry an EtherType, so that ARP and VLAN
// tags exist.
func (l layout) hasEtherType() bool { return l.typeOff >= 0 && !l.family }

// Address families of IPv6 in Null and Loop headers: Linux 10, NetBSD and
// OpenBSD 24, FreeBSD 28, Darwin 30 (LINKTYPE_NULL in the list of link types).
// IPv4 is 2 everywhere.
var familiesIPv6 = []uint32{10, 24, 28, 30}

const familyIPv4 = 2

// familyWord is an address family as a big-endian load of a frame's first four
// bytes finds it.
func familyWord(lt LinkType, family uint32) uint32 {
	if lt == Null { // little-endian hosts
		return family << 24
	}
	return family
}

// Packet types of cooked frames (PACKET_* of linux/if_packet.h).
const (
	pktBroadcast = 1
	pktMulticast = 2
)

// width is how many bytes the load reads.
func (f load) width() uint32 { return loadWidth(f.op) }

// loadWidth is how many bytes of the frame a load of this opcode's size reads.
func loadWidth(op uint16) uint32 {
	switch op & sizeMask {
	case sizeH:
		return 2
	case sizeB:
		return 1
	default:
		return 4
	}
}

// read is what the load finds; ok is false if the frame ends before it.
func (f load) read(frame []byte) (value uint32, ok bool) {
	end := f.off + f.width()
	if uint32(len(frame)) < end {
		return 0, false
	}
	for _, b := range frame[f.off:end] {
		value = value<<8 | uint32(b)
	}
	return value, true
}
