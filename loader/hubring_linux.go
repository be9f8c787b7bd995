package loader

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// A hubReader reads what the hub has put into a capture's ring (BPF_MAP_TYPE_RINGBUF of
// bpf-helpers(7)), where it is: packets are given back when the next ones are asked for.
type hubReader struct {
	consumer []byte  // a page with the position up to which all was given back, which is ours to write
	producer []byte  // a page with the position up to which there are records, and the ring, twice
	size     int     // of the ring, bytes; a power of two
	at       uintptr // the position up to which all was read
	end      uintptr // ... and up to which there was something when that was asked

	wakes  int               // an epoll(7) that says when the hub has woken us
	tagged [batchSize][]byte // frames with their tags put back, of those that are being handled
	tai    time.Duration     // that the hub's clock is ahead of UTC
	taken  uint64
}

// hubRecord is struct record of hub.bpf.c.
type hubRecord struct {
	Time       uint64
	Len        uint32
	Kept       uint32
	Protocol   uint16
	Type       uint8
	Unfiltered uint8
	TPID, TCI  uint16
}

const hubRecordLen = int(unsafe.Sizeof(hubRecord{}))

// makeRing makes the ring and puts it in its place.
func (s *seat) makeRing(bytes int) (err error) {
	if bytes <= 0 {
		bytes = DefaultRing(s.immediate)
	}
	size := uint32(1) << bits.Len(uint(max(bytes, os.Getpagesize())-1)) // a power of two
	s.ring, err = cilium.NewMap(&cilium.MapSpec{Name: "ring", Type: cilium.RingBuf, MaxEntries: size})
	if err != nil {
		return fmt.Errorf("make a ring of %d KiB (a smaller one may do): %w", size>>10, explainBPF(err))
	}
	if s.reader, err = newHubReader(s.ring.FD(), int(size)); err != nil {
		return err
	}
	return s.Rings.Put(s.id, s.ring)
}

// newHubReader maps a ring (kernel/bpf/ringbuf.c): its first page, that we write, and the
// others, that are read. Behind the ring it is once more, so that no record has an end.
func newHubReader(fd, size int) (_ *hubReader, err error) {
	r := &hubReader{size: size, wakes: -1}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	page := os.Getpagesize()
	if r.consumer, err = unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the hub's ring: %w", err)
	}
	if r.producer, err = unix.Mmap(fd, int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the hub's ring: %w", err)
	}
	r.setClock()
	if r.wakes, err = wakesOf(fd); err != nil {
		return nil, err
	}
	return r, nil
}

// wakesOf is an epoll that is ready when the ring's readers have been woken since it was
// asked, and not as long as there is something in the ring.
func wakesOf(ring int) (int, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, ring, &event); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("wait for the hub's ring: %w", err)
	}
	return fd, nil
}

func (r *hubReader) close() error {
	var errs []error
	for _, mem := range [][]byte{r.consumer, r.producer} {
		if mem != nil {
			errs = append(errs, unix.Munmap(mem))
		}
	}
	if r.wakes >= 0 {
		errs = append(errs, unix.Close(r.wakes))
	}
	return errors.Join(errs...)
}

// woken takes note of a wake.
func (r *hubReader) woken() { unix.EpollWait(r.wakes, make([]unix.EpollEvent, 1), 0) }

// setClock asks by how much the clocks differ: by whole seconds, or not at all where
// nobody has told the kernel.
func (r *hubReader) setClock() {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err == nil {
		r.tai = time.Duration(t.Tai) * time.Second
	}
}

// ready gives back what was read, and reports whether there is more.
func (r *hubReader) ready() bool {
	atomic.StoreUintptr((*uintptr)(unsafe.Pointer(&r.consumer[0])), r.at)
	return r.waiting() > 0
}

// waiting is how many bytes of the ring were not read.
func (r *hubReader) waiting() int {
	r.end = atomic.LoadUintptr((*uintptr)(unsafe.Pointer(&r.producer[0])))
	return int(r.end - r.at)
}

// next is the next record of those that waited; nil: there is none that is complete. Before
// each is a header of which the first half is its length, with bits that say that it is
// being written, or means nothing (BPF_RINGBUF_BUSY_BIT, _DISCARD_BIT, _HDR_SZ of linux/bpf.h).
func (r *hubReader) next() []byte {
	const busy, discarded, header = 1 << 31, 1 << 30, 8
	ring := r.producer[os.Getpagesize():]
	for r.at != r.end {
		start := int(r.at) & (r.size - 1)
		n := atomic.LoadUint32((*uint32)(unsafe.Pointer(&ring[start])))
		if n&busy != 0 {
			return nil
		}
		whole := int(n &^ discarded)
		r.at += uintptr(header + (whole+7)&^7)
		if n&discarded == 0 {
			r.taken++
			return ring[start+header:][:whole]
		}
	}
	return nil
}

// gather waits a moment for more, after the hub has woken us for the first frame since
// the ring was empty: until it does so again, the ring being a quarter full, or somebody
// else. To be woken for each frame costs more than to read it.
func (s *seat) gather(wakes []unix.PollFd) {
	s.reader.setClock()
	s.reader.woken()
	if s.immediate || s.reader.waiting() >= s.reader.size/4 {
		return
	}
	pollBriefly(wakes) // whatever it says, what is there is read
	s.reader.woken()
}

// grouped is about frames to many, of which the hub knows that they are in scope. The
// user's program about them is run here.
type grouped struct {
	program  bpf.Program // nil: it is frames.program
	ifindex  int
	rejected atomic.Uint64 // frames that it did not take
}

// nextShared is Next for what the hub gives.
func (c *ringPackets) nextShared(p *Packet) bool {
	r := c.shared.reader
	for c.left > 0 {
		record := r.next()
		if record == nil {
			c.left = 0
			break
		}
		c.left--
		if c.frames.readShared(record, &r.tagged[c.left], r.tai, &c.shared.grouped, p) {
			return true
		}
	}
	return false
}

// readShared makes p the frame of a record, and reports whether it is wanted. room is for
// one with a tag.
func (f *frames) readShared(record []byte, room *[]byte, tai time.Duration, g *grouped, p *Packet) bool {
	h := (*hubRecord)(unsafe.Pointer(&record[0]))
	outgoing := h.Type == unix.PACKET_OUTGOING
	if !f.wanted(outgoing, unix.ARPHRD_ETHER) {
		return false
	}
	data, added := h.frame(record, room)
	p.Time = time.Unix(0, int64(h.Time)).Add(-tai)
	p.Data = data[:min(len(data), f.snaplen)]
	p.Len = int(h.Len) + added
	p.Outgoing = outgoing
	return g.take(f, p, h, data)
}

// frame is the frame behind the header, with what the kernel has taken out of it put
// back, in room. added says how many bytes those are.
func (h *hubRecord) frame(record []byte, room *[]byte) (frame []byte, added int) {
	frame = record[hubRecordLen:][:h.Kept]
	if h.TPID == 0 || h.Kept < macsLen {
		return frame, 0
	}
	frame = append(append((*room)[:0], "\x00\x00\x00\x00"[:tagLen]...), frame...)
	*room = frame
	putTag(frame, networkOrder(h.TPID), h.TCI)
	if h.Kept < h.Len { // the filter's verdict, which counts what has been put back
		frame = frame[:h.Kept]
	}
	return frame, tagLen
}

// take runs what is left to be run of the user's program.
func (g *grouped) take(f *frames, p *Packet, h *hubRecord, frame []byte) bool {
	if f.program != nil {
		return f.match(p, frame, &unix.RawSockaddrLinklayer{
			Protocol: h.Protocol, Pkttype: h.Type, Ifindex: int32(g.ifindex), Hatype: unix.ARPHRD_ETHER,
		})
	}
	if h.Unfiltered == 0 {
		return true
	}
	verdict := bpf.VM{Dialect: bpf.Linux}.Run(g.program, bpf.Packet{
		Data:    frame,
		WireLen: h.Len,
		Meta: bpf.Metadata{
			Protocol: networkOrder(h.Protocol), PktType: h.Type, Ifindex: uint32(g.ifindex), Hatype: unix.ARPHRD_ETHER,
			NetOff: etherLen,
		},
	})
	if verdict == 0 {
		g.rejected.Add(1)
		return false
	}
	p.Data = p.Data[:min(uint64(len(p.Data)), uint64(verdict))]
	return true
}

const etherLen = 14

// sharedProgram says if p loads what is not the same here as in the kernel: of metadata it
// may load what the hub notes down and what does not change.
func sharedProgram(p bpf.Program) error {
	const (
		absolute, mode                                                 = 0x20, 0xe0 // BPF_ABS, and where it is in opcodes (linux/bpf_common.h)
		load, class                                                    = 0x00, 0x07 // BPF_LD
		ancillary                                                      = 0xfffff000 // SKF_AD_OFF of linux/filter.h; behind it:
		protocol, pktType, ifindex, hatype, xorX, vlanTag, vlanPresent = 0, 4, 8, 28, 40, 44, 48
	)
	for i, in := range p {
		if in.Op&class != load || in.Op&mode != absolute || in.K < ancillary {
			continue
		}
		switch in.K - ancillary {
		case protocol, pktType, ifindex, hatype, xorX, vlanTag, vlanPresent:
		default:
			return errors.New("the user's program looks at metadata: " + p[i:i+1].Line(0))
		}
	}
	return nil
}
