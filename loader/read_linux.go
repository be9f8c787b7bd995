package loader

import (
	"context"
	"time"

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
		case !e.near && ctx.Err() != nil:
			e = t.endAfterWhatArrived(nil)
		case e.near && t.ring.taken >= e.frames:
			return e.err
		}
		if t.ring.ready() {
			if err := t.readBlock(handle); err != nil {
				return err
			}
			continue
		}
		if e.near && time.Now().After(e.instant) {
			return e.err
		}
		if err := t.wait(e.near); err != nil && !e.near {
			e = t.endAfterWhatArrived(err)
		}
	}
}

func (t *Tap) endAfterWhatArrived(err error) end {
	return end{near: true, err: err, frames: t.arrived(), instant: time.Now().Add(patience)}
}

// readBlock handles what is left of a block.
func (t *Tap) readBlock(handle func(*Packet) error) error {
	for t.ring.left > 0 {
		p := t.frames.packet(t.ring.next())
		if p == nil {
			continue
		}
		if t.broken.Load() {
			return errBroken
		}
		if err := handle(p); err != nil {
			return err
		}
	}
	t.arrived() // often enough for the kernel's 32-bit counters
	return nil
}

// wait waits until a block is ready or, unless the end is near, until wakeUp.
func (t *Tap) wait(near bool) error {
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}, {Fd: int32(t.wake), Events: unix.POLLIN}}
	timeout := -1 // none
	if near {
		fds, timeout = fds[:1], 10 // ms
	}
	if _, err := unix.Poll(fds, timeout); err != nil && err != unix.EINTR {
		return t.explain(err)
	}
	if !near && fds[1].Revents != 0 {
		var n [8]byte
		unix.Read(t.wake, n[:]) // back to 0
	}
	if fds[0].Revents&unix.POLLERR != 0 {
		return t.waitingError()
	}
	return nil
}
