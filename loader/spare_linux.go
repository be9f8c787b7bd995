package loader

import (
	"errors"
	"fmt"
	"net/netip"

	"jailtap/bpf"
)

type spare struct {
	warden *warden
	cfg    CaptiveConfig
	made   *Captive
}

func (w *warden) spare(cfg CaptiveConfig) (*Spare, error) {
	cfg.Interface = ""
	c, err := w.prepare(cfg)
	cfg.Namespace = nil // is the caller's to close
	if err != nil {
		return nil, err
	}
	return &Spare{spare{w, cfg, c}}, nil
}

func (s *spare) captive(iface string, addrs []netip.Prefix) (*Captive, error) {
	c := s.made
	s.made = nil
	if c == nil {
		return nil, errClosed
	}
	if err := s.give(c, iface, addrs); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (s *spare) give(c *Captive, iface string, addrs []netip.Prefix) error {
	cfg := s.cfg
	cfg.Interface, cfg.Scope.Addrs = iface, addrs
	var err error
	if c.link, err = findWith(c.socket, iface); err != nil { // the namespace may be closed here
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if cooked := c.link.typ != bpf.Ethernet; cooked != cfg.Datagram {
		return fmt.Errorf("frames of %s begin otherwise than this socket's: %w", iface, errors.ErrUnsupported)
	}
	err = c.setScope(cfg.Scope)
	if errors.Is(err, errCapacity) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return err
	}
	return s.warden.finish(c, cfg)
}

func (s *spare) close() error {
	if s.made == nil {
		return nil
	}
	c := s.made
	s.made = nil
	return c.close()
}
