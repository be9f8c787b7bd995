package loader

import (
	"context"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience is how long Read waits, at its end, for a block that the kernel
// still fills. The kernel hands it over after two of the timeouts in
// ring_linux.go at most.
const patience = time.Second

// An end says when a Read has come to its end, and why.
type end struct {
	near    bool
	err     error
	frames  uint64 // ends when so many have been taken out of the ring
	instant time.Time
}

func (t *Tap) read(ctx context.Context, handle func(*Packet) error) error {
	return t.readRing(ctx, func(packets Packets) error {
		for packets != nil && packets.Next(&t.packet) {
			if err := handle(&t.packet); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *Tap) readBatches(ctx context.Context, handle func(Packets) error) error {
	return t.readRing(ctx, func(packets Packets) error {
		err := handle(packets)
		t.skip()
		return err
	})
}

// readRing calls handle with packets that are pending, and with nil before it waits for
// some.
func (t *Tap) readRing(ctx context.Context, handle func(Packets) error) error {
	t.reading.Lock()
	defer t.reading.Unlock()
	defer context.AfterFunc(ctx, t.wakeUp)()

	var e end
	for {
		switch {
		case t.closing.Load():
			return errClosed
		case t.broken.Load():
			return errBroken
		case t.left > 0:
			if err := handle((*ringPackets)(&t.conn)); err != nil {
				return err
			}
			continue
		case !e.near && ctx.Err() != nil:
			e = t.endAfterWhatArrived(nil)
		case e.near && t.taken() >= e.frames:
			return e.err
		}
		if t.ready() {
			t.take()
			continue
		}
		if t.enterSeat() {
			continue
		}
		if e.near && time.Now().After(e.instant) {
			return e.err
		}
		if err := handle(nil); err != nil {
			return err
		}
		if err := t.wait(e.near); err != nil && !e.near {
			e = t.endAfterWhatArrived(err)
		}
	}
}

func (t *Tap) endAfterWhatArrived(err error) end {
	return end{near: true, err: err, frames: t.arrived(), instant: time.Now().Add(patience)}
}

// batchSize is how many packets are handled at a time: few enough that a capture that
// is broken or closed soon ends.
const batchSize = 64

// ready reports whether there is something to be taken.
func (t *Tap) ready() bool {
	if t.shared != nil {
		return t.shared.reader.ready()
	}
	return t.ring.ready()
}

// taken is how many records have been read, ever.
func (t *Tap) taken() uint64 {
	if t.shared != nil {
		return t.ring.taken + t.shared.reader.taken
	}
	return t.ring.taken
}

// take makes records of the ring pending.
func (t *Tap) take() {
	if t.shared != nil {
		t.left = batchSize // at most
		return
	}
	t.left = min(t.ring.left, batchSize)
	if t.left == t.ring.left && t.ring.number()%countEvery == 0 {
		t.arrived()
	}
}

// countEvery is after how many blocks the kernel's 32-bit counters are asked: often
// enough for them, and seldom enough to cost nothing.
const countEvery = 16

// A ringPackets is a conn as the Packets that it has left.
type ringPackets conn

func (c *ringPackets) Next(p *Packet) bool {
	if c.shared != nil {
		return c.nextShared(p)
	}
	for c.left > 0 {
		c.left--
		if c.frames.read(c.ring.next(), p) {
			return true
		}
	}
	return false
}

// skip is done with what is pending.
func (t *Tap) skip() {
	for ; t.left > 0; t.left-- {
		if t.shared == nil {
			t.ring.next()
		} else {
			t.shared.reader.next()
		}
	}
}

// soon is within how many milliseconds the next block comes while there is traffic.
// From 10 on Go would take the thread for one that hangs.
const soon = 5

// wait waits until a block is ready or, unless the end is near, until wakeUp.
func (t *Tap) wait(near bool) error {
	if !near && t.own != nil && !t.watching {
		t.watchForHub()
	}
	fds, limit := t.fds, -1 // none
	switch {
	case near:
		fds, limit = t.fds[:1], 10 // ms
	case t.shared == nil && t.moving.Load():
		fds = t.fds[:2]
	}
	for i := range fds {
		fds[i].Revents = 0 // a poll that a signal ends leaves what the one before has said
	}
	if !pollBriefly(fds) {
		if _, err := unix.Poll(fds, limit); err != nil && err != unix.EINTR {
			return t.explain(err)
		}
	}
	if !near && fds[1].Revents != 0 {
		t.wake.Read(make([]byte, 8)) // back to 0
	}
	if fds[0].Revents&unix.POLLERR != 0 {
		return t.socketError()
	}
	switch {
	case near:
	case t.shared != nil && fds[1].Revents == 0:
		t.shared.gather(fds[1:])
	case t.shared == nil && len(fds) > 2 && fds[2].Revents != 0:
		t.watch.Read(make([]byte, 4096)) // what there is to be said is said
		t.moveSoon()
	}
	return nil
}

// pollBriefly waits for what comes soon, and says whether it did. Go is not told that
// it waits: to give the processor away and to get it back, for each block, costs more
// than to read the block. What Go may want of it ends the wait, being a signal.
func pollBriefly(fds []unix.PollFd) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&unix.Timespec{Nsec: soon * 1e6})), 0, 0, 0)
	return errno != 0 || n > 0
}
