package loader

import (
	"bytes"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/capfile"
)

// firstRecord is where in a block the records begin.
const firstRecord = 48

// filledConn has a ring whose one block the kernel would have filled with n frames.
func filledConn(n int, frame []byte) *conn {
	const mac = 96 // where in a record its frame is
	stride := mac + (len(frame)+15)&^15
	size := firstRecord + n*stride
	c := &conn{frames: frames{linkType: bpf.Ethernet, snaplen: 262144}}
	c.ring = ring{mem: make([]byte, size), block: size, held: true}
	for i := range n {
		rec := record(c.ring.mem[firstRecord+i*stride:])
		*rec.header() = unix.Tpacket3Hdr{
			Next_offset: uint32(stride), Sec: 1000, Nsec: uint32(i), Snaplen: uint32(len(frame)), Len: uint32(len(frame)), Mac: mac,
		}
		copy(rec[mac:], frame)
	}
	return c
}

// again are the first n packets of the block, to be read once more.
func (c *conn) again(n int) Packets {
	c.ring.off, c.ring.left, c.left = firstRecord, n, n
	return (*ringPackets)(c)
}

// TestFromTheRingToTheFileNothingIsAllocated: and all packets get there, in order.
func TestFromTheRingToTheFileNothingIsAllocated(t *testing.T) {
	const n = 1000
	frame := udp(1, 2, "own")
	for _, format := range []capfile.Format{capfile.Pcap, capfile.PcapNG} {
		var file bytes.Buffer
		c := filledConn(n, frame)
		through := func(w *capfile.Writer) {
			if got, err := w.WriteAll(0, c.again(n)); got != n || err != nil {
				t.Errorf("%v: %d packets, then %v", format, got, err)
			}
		}
		newWriter := func(out io.Writer) *capfile.Writer {
			w, err := capfile.NewWriter(out, "x", format, capfile.Section{}, capfile.Interface{LinkType: 1})
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		w := newWriter(&file)
		through(w)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		in, err := capfile.NewReader(&file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			p, err := in.Next()
			if err != nil || p.Time.Unix() != 1000 || p.Time.Nanosecond() != i || !bytes.Equal(p.Data, frame) {
				t.Fatalf("%v: packet %d is %v, %v", format, i, p, err)
			}
		}
		if _, err := in.Next(); err != io.EOF {
			t.Errorf("%v: after the last packet: %v", format, err)
		}
		w = newWriter(io.Discard)
		if got := testing.AllocsPerRun(100, func() { through(w) }); got != 0 {
			t.Errorf("%v: %v allocations for %d packets", format, got, n)
		}
	}
}

// BenchmarkFromTheRingToTheFile is what make profile shows: the way of a packet in
// this process, a packet for each iteration.
func BenchmarkFromTheRingToTheFile(b *testing.B) {
	const n = 1000
	c := filledConn(n, udp(1, 2, "own"))
	w, err := capfile.NewWriter(io.Discard, "x", capfile.PcapNG, capfile.Section{}, capfile.Interface{LinkType: 1})
	if err != nil {
		b.Fatal(err)
	}
	for done := 0; done < b.N; {
		took, err := w.WriteAll(0, c.again(min(n, b.N-done)))
		if err != nil {
			b.Fatal(err)
		}
		done += took
	}
}
