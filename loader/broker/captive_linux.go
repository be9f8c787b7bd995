package broker

import (
	"net/netip"

	"jailtap/bpf"
	"jailtap/loader"
)

// A Captive is a captive socket: *loader.Captive, but for how it counts.
type Captive interface {
	FD() int
	Cookie() uint64
	Label() string
	LinkType() bpf.LinkType
	Index() int
	Alive() bool
	SetFilter(bpf.Program) error
	ClearFilter() error
	SetScope(bpf.Scope) error
	Revoke() error
	Stats() (Stats, error)
	Release() error
	Close() error
}

// Captives makes captive sockets.
type Captives interface {
	Captive(loader.CaptiveConfig) (Captive, error)
	Prepare(loader.CaptiveConfig) (Spare, error)
	Adopt(label string) ([]Captive, error) // some, with an error about others
	Sweep() error
}

// A Spare is a captive socket that is nobody's yet: *loader.Spare, but for what it
// becomes.
type Spare interface {
	Captive(iface string, addrs []netip.Prefix) (Captive, error)
	Close() error
}

// Wardens are the Captives of a Warden.
func Wardens(w *loader.Warden) Captives { return warden{w} }

type warden struct{ *loader.Warden }

type wardens struct{ *loader.Captive }

func (w wardens) Stats() (Stats, error) {
	s, err := w.Captive.Stats()
	return Stats(s), err
}

func (w warden) Captive(cfg loader.CaptiveConfig) (Captive, error) {
	c, err := w.Warden.Captive(cfg)
	if err != nil {
		return nil, err
	}
	return wardens{c}, nil
}

func (w warden) Prepare(cfg loader.CaptiveConfig) (Spare, error) {
	s, err := w.Warden.Prepare(cfg)
	if err != nil {
		return nil, err
	}
	return spare{s}, nil
}

type spare struct{ *loader.Spare }

func (s spare) Captive(iface string, addrs []netip.Prefix) (Captive, error) {
	c, err := s.Spare.Captive(iface, addrs)
	if err != nil {
		return nil, err
	}
	return wardens{c}, nil
}

func (w warden) Adopt(label string) ([]Captive, error) {
	found, err := w.Warden.Adopt(label)
	var list []Captive
	for _, c := range found {
		list = append(list, wardens{c})
	}
	return list, err
}

func (s Stats) plus(o Stats) Stats {
	return Stats{s.Seen + o.Seen, s.InScope + o.InScope, s.Matched + o.Matched}
}
