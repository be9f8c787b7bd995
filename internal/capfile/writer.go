package capfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"jailtap/internal/captured"
)

// A Writer writes a capture file in this machine's byte order, with time
// stamps in nanoseconds. Packets reach the file in whole and many at a time;
// Flush writes what is there. When a write fails, a regular file is cut behind
// its last whole packet, and this and all later calls return the error.
type Writer struct {
	buffer
	format Format
	ifaces int
	packet captured.Packet // that is being written
}

// A Section is what a pcapng file says about its making.
type Section struct {
	OS          string
	Application string
}

// NewWriter writes the head of a file. The name is for errors.
func NewWriter(out io.Writer, name string, format Format, section Section, iface Interface) (*Writer, error) {
	w := &Writer{format: format}
	w.buffer = buffer{out: out, name: name, record: ngRecord, buf: make([]byte, 0, bufferSize)}
	if format == Pcap {
		w.record = func([]byte) int { return pcapHeaderLen }
		w.buf = appendPcapHeader(w.buf, iface)
		err := w.Flush()
		w.record = pcapRecord
		return w, err
	}
	w.buf = appendSection(w.buf, section)
	if _, err := w.AddInterface(iface); err != nil {
		return nil, err
	}
	return w, w.Flush()
}

// AddInterface describes one more interface, which only pcapng can, and
// returns its number. NewWriter's has number 0.
func (w *Writer) AddInterface(iface Interface) (int, error) {
	if w.format == Pcap {
		return 0, fmt.Errorf("%s: a pcap file holds packets of one interface; use pcapng", w.name)
	}
	if iface.LinkType > 0xffff {
		return 0, fmt.Errorf("%s: link type %d does not fit pcapng", w.name, iface.LinkType)
	}
	w.buf = appendInterface(w.buf, iface)
	w.ifaces++
	return w.ifaces - 1, w.done()
}

// Write adds packets of interface number iface.
func (w *Writer) Write(iface int, packets ...captured.Packet) error {
	for i := range packets {
		w.put(uint32(iface), &packets[i])
	}
	return w.err
}

// WriteAll adds all packets, of interface number iface, and says how many they were.
// When a write fails it takes no more of them.
func (w *Writer) WriteAll(iface int, packets captured.Packets) (n int, err error) {
	for w.err == nil && packets.Next(&w.packet) {
		w.put(uint32(iface), &w.packet)
		n++
	}
	return n, w.err
}

func (w *Writer) put(iface uint32, p *captured.Packet) {
	if w.format == Pcap {
		w.putPcap(p)
	} else {
		w.putEnhanced(iface, p)
	}
}

// Size is the length of the file in bytes, with what is not yet written.
func (w *Writer) Size() int64 { return w.size() }

// Flush writes all packets out.
func (w *Writer) Flush() error { return w.flush() }

// Stats are the counts of an interface at the end of a capture.
type Stats struct {
	Start, End time.Time
	Received   uint64 // packets that the filter accepted, with those dropped
	Dropped    uint64 // of these, lost for want of room
}

// WriteStats adds an interface statistics block; pcap has none.
func (w *Writer) WriteStats(iface int, s Stats) error {
	if w.format == PcapNG {
		w.buf = appendStats(w.buf, uint32(iface), s)
	}
	return w.done()
}

func appendPcapHeader(b []byte, iface Interface) []byte {
	b = appendWord(b, magicNano)
	b = binary.NativeEndian.AppendUint16(b, 2)
	b = binary.NativeEndian.AppendUint16(b, 4)
	b = appendWord(b, 0) // time zone
	b = appendWord(b, 0) // accuracy
	b = appendWord(b, iface.SnapLen)
	return appendWord(b, iface.LinkType)
}

func (w *Writer) putPcap(p *captured.Packet) {
	total := pcapRecordLen + len(p.Data)
	w.need(total)
	r := w.extend(total)
	_ = r[pcapRecordLen-1] // so that this is checked once
	binary.NativeEndian.PutUint32(r[0:], uint32(p.Time.Unix()))
	binary.NativeEndian.PutUint32(r[4:], uint32(p.Time.Nanosecond()))
	binary.NativeEndian.PutUint32(r[8:], uint32(len(p.Data)))
	binary.NativeEndian.PutUint32(r[12:], uint32(p.Len))
	copy(r[pcapRecordLen:], p.Data)
}

// pcapRecord is the length of the record that b begins with.
func pcapRecord(b []byte) int {
	if len(b) < pcapRecordLen {
		return pcapRecordLen
	}
	return pcapRecordLen + int(binary.NativeEndian.Uint32(b[8:]))
}

func appendWord(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }
