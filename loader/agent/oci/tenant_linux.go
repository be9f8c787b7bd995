//go:build amd64 || arm64

package oci

import (
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"jailtap/loader/agent"
)

// A tenant is who is behind a listener. It settles in a network namespace when a
// thread of it first asks for a packet socket, in that of the thread: until then
// there is nothing to be had for it, and where it is, is the kernel's word.
type tenant struct {
	server    *Server
	container Container
	log       *slog.Logger

	mu    sync.Mutex
	place *place // nil: not settled yet, or refused
	fleet *fleet
	err   error // why it was refused
}

// admit is agent.Options.Admit.
func (t *tenant) admit(tid int, waits func() bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.place == nil && t.err == nil {
		if err := t.settle(tid, waits); err != nil {
			return err
		}
	}
	if t.err != nil {
		return t.err
	}
	return errors.Join(t.place.holds(tid), confined(tid))
}

// settle finds the tenant's place and fleet. If there is no fleet for it then
// there will not be another time. An error is about the thread alone.
func (t *tenant) settle(tid int, waits func() bool) error {
	p, err := openPlace(tid)
	if err != nil {
		return err
	}
	err = errors.Join(p.ours(), confined(tid))
	if err == nil && !waits() {
		err = unix.ESRCH // and it was another thread's, maybe
	}
	if err != nil {
		p.Close()
		return err
	}
	if t.fleet, t.err = t.server.join(t.container, p); t.err != nil {
		p.Close()
		t.log.Warn("container refused", "error", t.err)
		return nil
	}
	t.place = p
	return nil
}

// leave is for when nobody is behind the listener any more.
func (t *tenant) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.place == nil {
		return
	}
	t.server.leave(t.fleet)
	t.place.Close()
	t.place, t.fleet, t.err = nil, nil, errors.New("the container has ended")
}

// captives are what the tenant's fleet makes; nil: it has none.
func (t *tenant) captives() agent.Captives {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fleet == nil {
		return nil
	}
	return t.fleet.Captives
}

// New implements agent.Captives. Who asks was admitted.
func (t *tenant) New(datagram bool) (agent.Captive, error) { return t.captives().New(datagram) }

// Existing implements agent.Captives.
func (t *tenant) Existing() (map[uint64]bool, error) { return t.captives().Existing() }
