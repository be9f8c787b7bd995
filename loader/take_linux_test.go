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

// filledRing is a ring whose one block the kernel would have filled with n frames.
func filledRing(n int, frame []byte) *ring {
	const mac = 96 // where in a record its frame is
	stride := mac + (len(frame)+15)&^15
	size := firstRecord + n*stride
	r := &ring{mem: make([]byte, size), block: size, off: firstRecord, left: n, held: true}
	for i := range n {
		rec := record(r.mem[firstRecord+i*stride:])
		*rec.header() = unix.Tpacket3Hdr{
			Next_offset: uint32(stride), Sec: 1000, Nsec: uint32(i), Snaplen: uint32(len(frame)), Len: uint32(len(frame)), Mac: mac,
		}
		copy(rec[mac:], frame)
	}
	return r
}

// TestFromTheRingToTheFileNothingIsAllocated: and all packets get there, in order.
func TestFromTheRingToTheFileNothingIsAllocated(t *testing.T) {
	const n = 1000
	frame := udp(1, 2, "own")
	for _, format := range []capfile.Format{capfile.Pcap, capfile.PcapNG} {
		var file bytes.Buffer
		f := &frames{linkType: bpf.Ethernet, snaplen: 262144}
		r := filledRing(n, frame)
		var batch [batchSize]Packet
		through := func(w *capfile.Writer) {
			r.off, r.left = firstRecord, n
			for r.left > 0 {
				if err := w.Write(0, batch[:f.take(r, batch[:])]...); err != nil {
					t.Error(err)
				}
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
	f := &frames{linkType: bpf.Ethernet, snaplen: 262144}
	r := filledRing(n, udp(1, 2, "own"))
	w, err := capfile.NewWriter(io.Discard, "x", capfile.PcapNG, capfile.Section{}, capfile.Interface{LinkType: 1})
	if err != nil {
		b.Fatal(err)
	}
	var batch [batchSize]Packet
	for done := 0; done < b.N; {
		r.off, r.left = firstRecord, min(n, b.N-done)
		for r.left > 0 {
			took := f.take(r, batch[:])
			done += took
			if err := w.Write(0, batch[:took]...); err != nil {
				b.Fatal(err)
			}
		}
	}
}
