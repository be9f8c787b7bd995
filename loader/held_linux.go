package loader

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

func hold(fd int, cfg HeldConfig) (_ *Tap, err error) {
	t := &Tap{conn: conn{fd: fd, filter: heldFilter{cfg.Counts}}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	t.link = link{name: cfg.Interface, index: cfg.Index, typ: cfg.LinkType}
	t.engine, t.reason = EBPF, "it is a captive socket"
	t.frames.linkType, t.frames.direction, t.frames.program = cfg.LinkType, cfg.Direction, cfg.Program
	t.frames.snaplen = Config{Snaplen: cfg.Snaplen}.snaplen()
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || kind != unix.AF_PACKET {
		return nil, fmt.Errorf("hold a captive socket: descriptor %d is none (%v)", fd, err)
	}
	if err := t.takeRing(cfg); err != nil {
		return nil, err
	}
	if err := t.ask(Config{Direction: cfg.Direction}); err != nil {
		return nil, err
	}
	return t, t.openPoll()
}

// takeRing maps the ring that the socket has, or makes one.
func (t *Tap) takeRing(cfg HeldConfig) (err error) {
	if !cfg.HasRing {
		t.ring, err = newRing(t.fd, cfg.RingBytes, cfg.Immediate)
		return err
	}
	t.ring, _ = geometry(cfg.RingBytes, cfg.Immediate)
	return t.ring.mapFrom(t.fd)
}

// heldFilter is the filter of a captive socket as its holder knows it.
type heldFilter struct {
	counts func() (CaptiveStats, error)
}

func (heldFilter) setScope(int, bpf.Scope) error {
	return fmt.Errorf("the scope of a captive socket is not its holder's: %w", errors.ErrUnsupported)
}

// count leaves out what cannot be had: whoever keeps the counts may be gone.
func (h heldFilter) count(s *Stats) error {
	if h.counts == nil {
		return nil
	}
	c, err := h.counts()
	if err == nil {
		s.Seen, s.InScope, s.Matched = &c.Seen, &c.InScope, &c.Matched
	}
	return nil
}

func (heldFilter) close() {}
