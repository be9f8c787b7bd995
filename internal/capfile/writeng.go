package capfile

import (
	"encoding/binary"
	"time"

	"jailtap/internal/captured"
)

func appendSection(b []byte, s Section) []byte {
	b, start := appendBlock(b, blockSection)
	b = appendWord(b, byteOrderMagic)
	b = binary.NativeEndian.AppendUint16(b, 1)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint64(b, 0xffffffffffffffff) // length not known yet
	b = appendOption(b, optSectionOS, "", s.OS)
	b = appendOption(b, optSectionApplication, "", s.Application)
	return endBlock(appendOptionEnd(b), start)
}

func appendInterface(b []byte, iface Interface) []byte {
	b, start := appendBlock(b, blockInterface)
	b = binary.NativeEndian.AppendUint16(b, uint16(iface.LinkType))
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = appendWord(b, iface.SnapLen)
	b = appendOption(b, optInterfaceName, "", iface.Name)
	b = appendOption(b, optInterfaceDescription, "", iface.Description)
	b = appendOption(b, optInterfaceFilter, "\x00", iface.Filter) // 0: a filter in words
	b = appendOption(b, optInterfaceTsresol, "", "\x09")          // 10^-9 s
	return endBlock(appendOptionEnd(b), start)
}

// Of an enhanced packet block, bytes before the packet and behind its padding.
const (
	enhancedHead = 28
	enhancedTail = 4
)

func (w *Writer) putEnhanced(iface uint32, p *captured.Packet) {
	stamp := uint64(p.Time.UnixNano())
	total := enhancedHead + padded(len(p.Data)) + enhancedTail
	w.need(total)
	r := w.extend(total)
	_ = r[enhancedHead+enhancedTail-1] // so that this is checked once
	binary.NativeEndian.PutUint32(r[0:], blockEnhanced)
	binary.NativeEndian.PutUint32(r[4:], uint32(total))
	binary.NativeEndian.PutUint32(r[8:], iface)
	binary.NativeEndian.PutUint32(r[12:], uint32(stamp>>32))
	binary.NativeEndian.PutUint32(r[16:], uint32(stamp))
	binary.NativeEndian.PutUint32(r[20:], uint32(len(p.Data)))
	binary.NativeEndian.PutUint32(r[24:], uint32(p.Len))
	binary.NativeEndian.PutUint32(r[total-8:], 0) // the padding, if there is any
	copy(r[enhancedHead:], p.Data)
	binary.NativeEndian.PutUint32(r[total-enhancedTail:], uint32(total))
}

// appendStats says received and dropped twice: in the fields that mean just
// that, and in those that dumpcap fills and Wireshark shows.
func appendStats(b []byte, iface uint32, s Stats) []byte {
	b, start := appendBlock(b, blockStatistics)
	b = appendWord(b, iface)
	b = appendStamp(b, s.End)
	b = appendOption(b, optStatsStart, "", string(appendStamp(nil, s.Start)))
	b = appendOption(b, optStatsEnd, "", string(appendStamp(nil, s.End)))
	for _, o := range []struct {
		code  uint16
		value uint64
	}{
		{optStatsReceived, s.Received}, {optStatsDropped, s.Dropped},
		{optStatsFilterAccept, s.Received}, {optStatsOSDrop, s.Dropped},
	} {
		b = appendOption(b, o.code, "", string(binary.NativeEndian.AppendUint64(nil, o.value)))
	}
	return endBlock(appendOptionEnd(b), start)
}

// appendStamp writes a time as pcapng does: the upper word first, whatever the
// byte order.
func appendStamp(b []byte, t time.Time) []byte {
	stamp := uint64(t.UnixNano())
	return appendWord(appendWord(b, uint32(stamp>>32)), uint32(stamp))
}

func appendBlock(b []byte, kind uint32) (block []byte, start int) {
	return appendWord(appendWord(b, kind), 0), len(b)
}

// endBlock puts the length of the block from start on where it belongs.
func endBlock(b []byte, start int) []byte {
	total := uint32(len(b) - start + 4)
	binary.NativeEndian.PutUint32(b[start+4:], total)
	return appendWord(b, total)
}

// maxOption is the longest option value that is written; its length has 16 bits.
const maxOption = 0xfff0

// appendOption writes nothing for an empty value.
func appendOption(b []byte, code uint16, prefix, value string) []byte {
	if value == "" {
		return b
	}
	value = prefix + value
	value = value[:min(len(value), maxOption)]
	b = binary.NativeEndian.AppendUint16(b, code)
	b = binary.NativeEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	return append(b, "\x00\x00\x00"[:padded(len(value))-len(value)]...)
}

func appendOptionEnd(b []byte) []byte { return appendWord(b, optEnd) }

// ngRecord is the length of the block that b begins with.
func ngRecord(b []byte) int {
	if len(b) < 12 {
		return 12
	}
	return int(binary.NativeEndian.Uint32(b[4:]))
}
