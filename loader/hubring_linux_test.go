package loader

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"jailtap/bpf"
	"jailtap/internal/capfile"
)

// A fakeHub writes into a ring as the kernel does (kernel/bpf/ringbuf.c).
type fakeHub struct {
	*hubReader
	at uintptr
}

const (
	ringHeader    = 8       // BPF_RINGBUF_HDR_SZ of linux/bpf.h
	ringBusy      = 1 << 31 // BPF_RINGBUF_BUSY_BIT
	ringDiscarded = 1 << 30 // BPF_RINGBUF_DISCARD_BIT
)

func newFakeHub(size int) *fakeHub {
	page := os.Getpagesize()
	return &fakeHub{hubReader: &hubReader{consumer: make([]byte, page), producer: make([]byte, page+2*size), size: size}}
}

// set writes bytes at a position, in both places where the reader may look for them.
func (h *fakeHub) set(at uintptr, data []byte) {
	ring := h.producer[os.Getpagesize():]
	for i, b := range data {
		n := (int(at) + i) % h.size
		ring[n], ring[n+h.size] = b, b
	}
}

// put adds a record, and says where its header is; ok is false if there is no room.
func (h *fakeHub) put(data []byte, bits uint32) (header uintptr, ok bool) {
	given := *(*uintptr)(unsafe.Pointer(&h.consumer[0]))
	whole := uintptr(ringHeader + (len(data)+7)&^7)
	if h.at+whole-given > uintptr(h.size) {
		return 0, false
	}
	header = h.at
	var text [ringHeader]byte
	binary.NativeEndian.PutUint32(text[:], uint32(len(data))|bits)
	h.set(header, text[:])
	h.set(header+ringHeader, data)
	h.at += whole
	*(*uintptr)(unsafe.Pointer(&h.producer[0])) = h.at
	return header, true
}

// hubFrame is a record with a frame.
func hubFrame(tpid uint16, frame []byte) []byte {
	h := hubRecord{Time: 1e9, Len: uint32(len(frame)), Kept: uint32(len(frame)), TPID: networkOrder(tpid), TCI: 7}
	return append(bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&h)), hubRecordLen)), frame...)
}

// packets are those that wait in the ring.
func (h *fakeHub) packets(c *conn) Packets {
	h.ready()
	c.left = batchSize
	return (*ringPackets)(c)
}

func (h *fakeHub) conn() *conn {
	return &conn{frames: frames{linkType: bpf.Ethernet, snaplen: 262144}, shared: &seat{reader: h.hubReader}}
}

// Whatever the sizes of records, all come in order and whole, round and round.
func TestAHubsRingIsReadInOrder(t *testing.T) {
	h := newFakeHub(4096)
	c := h.conn()
	random := rand.New(rand.NewPCG(1, 2))
	var waiting [][]byte
	seen := 0
	for range 10_000 {
		frame := make([]byte, macsLen+random.IntN(600))
		rand.NewChaCha8([32]byte{byte(seen), byte(len(waiting))}).Read(frame)
		tpid := []uint16{0, 0x8100}[random.IntN(2)]
		if random.IntN(5) == 0 {
			h.put(hubFrame(0, frame), ringDiscarded)
		}
		if _, ok := h.put(hubFrame(tpid, frame), 0); ok {
			if tpid != 0 { // has its tag behind the MACs
				frame = append(append(bytes.Clone(frame[:macsLen]), 0x81, 0, 0, 7), frame[macsLen:]...)
			}
			waiting = append(waiting, frame)
			continue
		}
		var p Packet
		var got [][]byte // as long as the batch is being handled
		for packets := h.packets(c); packets.Next(&p); {
			got = append(got, p.Data)
			if p.Len != len(p.Data) {
				t.Fatalf("%d bytes on the wire, of which %d are there", p.Len, len(p.Data))
			}
		}
		if len(got) == 0 && len(waiting) > 0 {
			t.Fatalf("nothing comes out of a full ring after %d packets", seen)
		}
		for i, data := range got {
			if !bytes.Equal(data, waiting[i]) {
				t.Fatalf("packet %d: %x, want %x", seen+i, data, waiting[i])
			}
		}
		seen += len(got)
		waiting = waiting[len(got):]
	}
	if seen < 1000 {
		t.Errorf("%d packets only", seen)
	}
}

// A record that is being written ends what can be read, until it is there.
func TestARecordThatIsBeingWrittenIsWaitedFor(t *testing.T) {
	h := newFakeHub(4096)
	c := h.conn()
	h.put(hubFrame(0, udp(1, 2, "a")), 0)
	written := hubFrame(0, udp(1, 2, "b"))
	header, _ := h.put(written, ringBusy)
	h.put(hubFrame(0, udp(1, 2, "c")), 0)
	var p Packet
	packets := h.packets(c)
	if !packets.Next(&p) || !bytes.HasSuffix(p.Data, []byte("a")) || packets.Next(&p) {
		t.Fatalf("got %q, or more", p.Data)
	}
	h.set(header, binary.NativeEndian.AppendUint32(nil, uint32(len(written))))
	packets = h.packets(c)
	for _, want := range []string{"b", "c"} {
		if !packets.Next(&p) || !bytes.HasSuffix(p.Data, []byte(want)) {
			t.Errorf("got %q, want %s", p.Data, want)
		}
	}
	if packets.Next(&p) || h.ready() {
		t.Error("there is more")
	}
}

func TestFromAHubsRingToTheFileNothingIsAllocated(t *testing.T) {
	h := newFakeHub(1 << 20)
	c := h.conn()
	w, err := capfile.NewWriter(io.Discard, "x", capfile.Pcap, capfile.Section{}, capfile.Interface{LinkType: 1})
	if err != nil {
		t.Fatal(err)
	}
	records := [][]byte{hubFrame(0, udp(1, 2, "own")), hubFrame(0x8100, udp(1, 2, "own"))}
	through := func() {
		for _, r := range records {
			h.put(r, 0)
		}
		if n, err := w.WriteAll(0, h.packets(c)); n != len(records) || err != nil {
			t.Errorf("%d packets, then %v", n, err)
		}
	}
	through() // makes room for tags
	if n := testing.AllocsPerRun(100, through); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
