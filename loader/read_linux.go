package loader

import (
	"context"
	"errors"
	"os"
	"time"
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
	t.poll.SetReadDeadline(time.Time{})
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
// It waits in Go's poller: a thread that blocks in poll(2) for each block costs
// more than the packets do.
func (t *Tap) wait(near bool) (err error) {
	if near {
		t.poll.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	}
	woken := t.pollable.Read(func(uintptr) bool {
		if t.ring.ready() {
			return true
		}
		err = t.waitingError()
		return err != nil
	})
	switch {
	case err != nil, woken == nil, errors.Is(woken, os.ErrDeadlineExceeded):
		return err
	}
	return t.waitingError() // all that the poller knows is that there is one
}
