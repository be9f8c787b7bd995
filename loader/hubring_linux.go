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
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// A hubReader reads what the hub has put into a capture's ring (BPF_MAP_TYPE_RINGBUF of
// bpf-helpers(7)).
type hubReader struct {
	*ringbuf.Reader
	wakes   int                       // an epoll(7) that says when the hub has woken us
	records [batchSize]ringbuf.Record // what is being handled
	packets [batchSize]Packet         // of these
	tai     time.Duration             // that the hub's clock is ahead of UTC
	taken   uint64
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
	r, err := ringbuf.NewReader(s.ring)
	if err != nil {
		return err
	}
	r.SetDeadline(time.Unix(0, 1)) // what is not there is not waited for here
	s.reader = &hubReader{Reader: r}
	s.reader.setClock()
	if s.reader.wakes, err = wakesOf(s.ring.FD()); err != nil {
		return err
	}
	return s.Rings.Put(s.id, s.ring)
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

func (r *hubReader) close() error { return errors.Join(r.Close(), unix.Close(r.wakes)) }

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

func (r *hubReader) ready() bool { return r.AvailableBytes() > 0 }

// gather waits a moment for more, after the hub has woken us for the first frame since
// the ring was empty: until it does so again, the ring being a quarter full, or somebody
// else. To be woken for each frame costs more than to read it.
func (s *seat) gather(wakes []unix.PollFd) {
	s.reader.setClock()
	s.reader.woken()
	if s.immediate || s.reader.AvailableBytes() >= s.reader.BufferSize()/4 {
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

// takeShared takes packets from a hub's ring. They are valid until the next ones are.
func (f *frames) takeShared(r *hubReader, g *grouped) []Packet {
	n := 0
	for n < batchSize && r.ready() {
		rec := &r.records[n]
		if err := r.ReadInto(rec); err != nil || len(rec.RawSample) < hubRecordLen {
			break // all that was left had been given up by the hub
		}
		r.taken++
		h := (*hubRecord)(unsafe.Pointer(&rec.RawSample[0]))
		outgoing := h.Type == unix.PACKET_OUTGOING
		if !f.wanted(outgoing, unix.ARPHRD_ETHER) {
			continue
		}
		data, added := h.frame(rec.RawSample)
		p := &r.packets[n]
		p.Time = time.Unix(0, int64(h.Time)).Add(-r.tai)
		p.Data = data[:min(len(data), f.snaplen)]
		p.Len = int(h.Len) + added
		p.Outgoing = outgoing
		if g.take(f, p, h, data) {
			n++
		}
	}
	return r.packets[:n]
}

// frame is the frame behind the header, with what the kernel has taken out of it put
// back, over the header's end. added says how many bytes those are.
func (h *hubRecord) frame(record []byte) (frame []byte, added int) {
	kept := int(h.Kept)
	if h.TPID == 0 || kept < macsLen {
		return record[hubRecordLen:][:kept], 0
	}
	frame = record[hubRecordLen-tagLen:][:tagLen+kept]
	putTag(frame, networkOrder(h.TPID), h.TCI)
	if h.Kept < h.Len { // the filter's verdict, which counts what has been put back
		frame = frame[:kept]
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
