package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"

	"jailtap/bpf"
)

// A fakeBPF stands in for a bpf(4) device, since none can be had here: it
// writes down what is asked of it, and answers as a FreeBSD 12.1 kernel was
// observed to. Frames go through the program that is set, in the reference VM,
// into two buffers. What it cannot show is whether ioctl numbers and structs
// are right: tap_freebsd.go is all that is left out.
type fakeBPF struct {
	mu       sync.Mutex
	dlt      uint32 // of its one interface, fake0
	maxBytes uint32 // the sysctl net.bpf.maxbufsize
	refuse   request

	asked       []string    // the ioctls, in order
	after       func()      // called after each of them, unlocked
	filter      bpf.Program // as set by BIOCSETF, BIOCSETFNR
	writeFilter bpf.Program
	bufferLen   uint32
	attached    bool
	locked      bool
	writer      bool // net.bpf.optimize_writers: not active yet
	store, hold []byte
	received    uint32
	dropped     uint32
	closed      bool
	awake       chan struct{}
}

func newFakeBPF(dlt bpf.LinkType) *fakeBPF {
	return &fakeBPF{dlt: uint32(dlt), maxBytes: 524288, bufferLen: 4096, awake: make(chan struct{}, 1)}
}

// ask writes an ioctl down, and refuses it if the lock does.
func (f *fakeBPF) ask(text string, r request) error {
	f.asked = append(f.asked, text)
	allowed := []request{getLinkType, setImmediate, setStampFormat, lock}
	switch {
	case f.locked && !slices.Contains(allowed, r):
		return syscall.EPERM
	case r == f.refuse:
		return syscall.EINVAL
	}
	return nil
}

func (f *fakeBPF) did() {
	if f.after != nil {
		f.after()
	}
}

func (f *fakeBPF) number(r request, n uint32) (uint32, error) {
	defer f.did()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask(fmt.Sprint(r, " ", n), r); err != nil {
		return n, err
	}
	switch r {
	case setBufferLength:
		if f.attached {
			return n, syscall.EINVAL
		}
		f.bufferLen = min(max(n, 32), f.maxBytes)
		return f.bufferLen, nil
	case getLinkType, setPromiscuous:
		if !f.attached {
			return n, syscall.EINVAL
		}
		return f.dlt, nil
	case setDirection:
		if n > 2 {
			return n, syscall.EINVAL
		}
	case lock:
		f.locked = true
	}
	return n, nil
}

func (f *fakeBPF) program(r request, p bpf.Program) error {
	defer f.did()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask(fmt.Sprint(r, " ", verdicts(p)), r); err != nil {
		return err
	}
	if p.Validate(bpf.FreeBSD) != nil {
		return syscall.EINVAL
	}
	switch r {
	case setWriteFilter:
		f.writeFilter = p
		return nil
	case setFilter:
		f.store, f.hold, f.received, f.dropped = nil, nil, 0, 0
	}
	f.filter = p
	if f.attached && (r != setFilter || len(p) > 1) {
		f.writer = false
	}
	return nil
}

// verdicts says in a word what a program does.
func verdicts(p bpf.Program) string {
	if len(p) == 1 && p[0].K == 0 {
		return "reject"
	}
	return "program"
}

func (f *fakeBPF) attach(ifname string) (int, error) {
	defer f.did()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ask("BIOCSETIF "+ifname, "BIOCSETIF"); err != nil {
		return 0, err
	}
	if ifname != "fake0" {
		return 0, syscall.ENXIO
	}
	f.attached = true
	return 7, nil
}

func (f *fakeBPF) counts() (received, dropped uint32, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received, f.dropped, nil
}

// deliver is a frame that comes in on the interface.
func (f *fakeBPF) deliver(frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.attached || f.writer {
		return
	}
	f.received++
	verdict := bpf.VM{Dialect: bpf.FreeBSD, Receive: true}.Run(f.filter, bpf.Packet{Data: frame, WireLen: uint32(len(frame))})
	if verdict == 0 {
		return
	}
	caplen := int(min(verdict, uint32(len(frame))))
	at := (len(f.store) + bpfAlignment - 1) &^ (bpfAlignment - 1)
	if at > 0 && at+hdrBytes+caplen > int(f.bufferLen) {
		if f.hold != nil {
			f.dropped++
			return
		}
		f.hold, f.store, at = f.store, nil, 0
	}
	f.store = append(f.store, make([]byte, at-len(f.store))...)
	h := make([]byte, hdrBytes)
	binary.LittleEndian.PutUint64(h[hdrSec:], 1)
	binary.LittleEndian.PutUint32(h[hdrCap:], uint32(caplen))
	binary.LittleEndian.PutUint32(h[hdrData:], uint32(len(frame)))
	binary.LittleEndian.PutUint16(h[hdrLen:], hdrBytes)
	f.store = append(append(f.store, h...), frame[:caplen]...)
}

// destroy takes the interface away.
func (f *fakeBPF) destroy() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached = false
}

func (f *fakeBPF) read(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(b) != int(f.bufferLen) {
		return 0, syscall.EINVAL
	}
	if f.hold == nil {
		f.hold, f.store = f.store, nil
	}
	n := copy(b, f.hold)
	f.hold = nil
	switch {
	case n > 0:
		return n, nil
	case !f.attached:
		return 0, syscall.ENXIO
	}
	return 0, syscall.EAGAIN
}

// wait has no limit, so that a test that depends on it hangs.
func (f *fakeBPF) wait(limit time.Duration) error {
	if limit <= 0 || limit > math.MaxInt32*time.Millisecond {
		return errors.New("a limit that poll(2) does not have")
	}
	<-f.awake
	return nil
}

func (f *fakeBPF) wake() {
	select {
	case f.awake <- struct{}{}:
	default: // a pipe that is full
	}
}

func (f *fakeBPF) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}
