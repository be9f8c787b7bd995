//go:build amd64 || arm64

package agent

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"jailtap/bpf"
	"jailtap/loader"
)

// A Fleet makes captive sockets that have one scope, and changes it for all.
type Fleet struct {
	warden *loader.Warden
	ns     loader.Namespace

	mu      sync.Mutex
	scope   bpf.Scope
	changes int // how often the scope has been set
	revoked bool
	ships   map[*ship]bool
}

// NewFleet makes one whose sockets are in a network namespace; nil: the caller's.
func NewFleet(w *loader.Warden, ns loader.Namespace, s bpf.Scope) *Fleet {
	return &Fleet{warden: w, ns: ns, scope: s, ships: map[*ship]bool{}}
}

// A ship is a captive socket that takes itself off the list when it is closed.
type ship struct {
	*loader.Captive
	fleet *Fleet
}

// Close also revokes: the scope would not be followed any more.
func (s *ship) Close() error {
	s.fleet.mu.Lock()
	delete(s.fleet.ships, s)
	s.fleet.mu.Unlock()
	return errors.Join(s.Revoke(), s.Captive.Close())
}

// New implements Captives. Nobody has the socket before it has the scope of the
// moment at which New returns.
func (f *Fleet) New(datagram bool) (Captive, error) {
	f.mu.Lock()
	scope, changes := f.scope, f.changes
	f.mu.Unlock()
	c, err := f.warden.Captive(loader.CaptiveConfig{Namespace: f.ns, Datagram: datagram, Scope: scope})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.revoked:
		err = errors.New("the scope was revoked")
	case f.changes != changes: // while the socket was being made
		err = c.SetScope(f.scope)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	s := &ship{c, f}
	f.ships[s] = true
	return s, nil
}

// SetScope changes the scope of all sockets, and of those to come. A socket for
// which that fails has nothing in scope until it succeeds.
func (f *Fleet) SetScope(s bpf.Scope) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scope = s
	f.changes++
	return f.each(func(c *loader.Captive) error { return c.SetScope(s) })
}

// Revoke empties the scope of all sockets for good, and makes no more.
func (f *Fleet) Revoke() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked = true
	return f.each((*loader.Captive).Revoke)
}

func (f *Fleet) each(do func(*loader.Captive) error) error {
	var errs []error
	for s := range f.ships {
		errs = append(errs, do(s.Captive))
	}
	return errors.Join(errs...)
}

// Existing implements Captives.
func (f *Fleet) Existing() (map[uint64]bool, error) { return loader.PacketSockets(f.ns) }

// Close closes what is left.
func (f *Fleet) Close() error {
	err := f.Revoke()
	f.mu.Lock()
	left := slices.Collect(maps.Keys(f.ships))
	f.mu.Unlock()
	for _, s := range left {
		err = errors.Join(err, s.Captive.Close())
	}
	return err
}
