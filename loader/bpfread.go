package loader

import (
	"context"
	"errors"
	"syscall"
	"time"

	"jailtap/internal/captured"
)

// bpfPatience is how long frames may wait in a buffer that is not full. The wait
// has its own limit, and BIOCSRTIMEOUT is not used: any ioctl(2) on the device,
// as for the counts, would stop that clock (bpfioctl in sys/net/bpf.c).
const bpfPatience = 50 * time.Millisecond

func (c *bpfConn) read(ctx context.Context, handle func(*Packet) error) error {
	return c.readDevice(ctx, handle, func() error { return nil })
}

func (c *bpfConn) readBatches(ctx context.Context, handle func(Packets) error) error {
	one := make([]Packet, 1)
	var batch captured.List
	return c.readDevice(ctx, func(p *Packet) error {
		one[0], batch = *p, one
		return handle(&batch)
	}, func() error { return handle(nil) })
}

// readDevice calls idle before it waits.
func (c *bpfConn) readDevice(ctx context.Context, handle func(*Packet) error, idle func() error) error {
	c.reading.Lock()
	defer c.reading.Unlock()
	defer context.AfterFunc(ctx, c.wakeUp)()

	// When ctx has ended, two reads get all that arrived before: what fills the
	// one buffer, and what is in the other.
	const buffers = 2
	left, ending := buffers, false
	for {
		if err := c.handleRead(handle); err != nil {
			return err
		}
		ending = ending || ctx.Err() != nil
		if ending && left == 0 {
			return nil
		}
		got, err := c.fill()
		switch {
		case err != nil:
			return err
		case ending && !got:
			return nil
		case ending:
			left--
		case !got:
			if err := idle(); err != nil {
				return err
			}
			if err := c.dev.wait(bpfPatience); err != nil {
				return c.explain(err)
			}
		}
	}
}

// handleRead handles what is left of the last read.
func (c *bpfConn) handleRead(handle func(*Packet) error) error {
	for {
		switch {
		case c.closing.Load():
			return errClosed
		case c.broken.Load():
			return errBroken
		case !c.records.more():
			return nil
		}
		record, err := c.records.next()
		if err != nil {
			return c.explain(err)
		}
		c.taken.Add(1)
		c.out.Time, c.out.Len = record.time, record.length
		c.out.Data = record.data[:min(len(record.data), c.snaplen)]
		if err := handle(&c.out); err != nil {
			return err
		}
	}
}

// fill reads a buffer, if there is anything in it.
func (c *bpfConn) fill() (got bool, err error) {
	n, err := c.dev.read(c.buf)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return false, nil
	case err != nil:
		return false, c.explain(err)
	}
	c.records.buf, c.records.off = c.buf[:n], 0
	c.counting.Lock()
	defer c.counting.Unlock()
	return n > 0, c.count() // often enough for 32 bits
}
