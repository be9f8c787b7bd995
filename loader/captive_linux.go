package loader

import (
	"errors"
	"fmt"
	"sync"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
)

type captive struct {
	mu       sync.Mutex
	socket   int
	cookie   uint64
	addrs    *addrSet
	counters *cilium.Map
	slot     *cilium.Map // a program array loses its programs with the last reference from here
	scope    bpf.Scope
	revoked  bool
}

// captive makes the socket. Each step comes before whatever it could be too
// late for.
func (w *warden) captive(cfg CaptiveConfig) (_ *Captive, err error) {
	c := &Captive{captive{socket: -1, scope: cfg.Scope}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	scope, err := c.program()
	if err != nil {
		return nil, err
	}
	defer scope.Close() // the socket keeps it
	if err = w.mute(c, cfg, scope); err != nil {
		return nil, err
	}
	if err = c.confine(scope); err != nil {
		return nil, err
	}
	return c, answers(c.socket)
}

// mute makes the socket, one that cannot send.
func (w *warden) mute(c *Captive, cfg CaptiveConfig, scope *cilium.Program) error {
	info, err := scope.Info()
	if err != nil {
		return err
	}
	number, _ := info.ID()
	w.mu.Lock()
	defer w.mu.Unlock()
	// Before there is a socket, every interface that it could send on is
	// guarded.
	g, err := w.guarded(cfg.Namespace)
	if err != nil {
		return err
	}
	// Protocol 0: nothing comes in until it is bound, which is the holder's
	// business.
	lt := bpf.Ethernet
	if cfg.Datagram {
		lt = bpf.LinuxSLL2
	}
	err = within(cfg.Namespace, func() (err error) {
		c.socket, err = packetSocket(lt)
		return err
	})
	if err != nil {
		return err
	}
	c.cookie, err = w.guards.arrest(c.socket, g.inode, number)
	return err
}

// program loads the scope.
func (c *captive) program() (_ *cilium.Program, err error) {
	if c.addrs, err = filled(c.scope); err != nil {
		return nil, err
	}
	spec, err := ebpf.Captive(c.scope, c.addrs.capacity)
	if err != nil {
		return nil, err
	}
	all, err := cilium.NewCollectionWithOptions(spec, cilium.CollectionOptions{MapReplacements: c.addrs.Maps()})
	if err != nil {
		return nil, explainBPF(err)
	}
	defer all.Close()
	c.counters, c.slot = all.DetachMap(ebpf.Counts), all.DetachMap(ebpf.Slot)
	return all.DetachProgram(ebpf.Program), nil
}

// confine puts the scope on the socket, for good.
func (c *captive) confine(scope *cilium.Program) error {
	if err := unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, scope.FD()); err != nil {
		return fmt.Errorf("attach the scope: %w", err)
	}
	if err := unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		return fmt.Errorf("lock the scope: %w", err)
	}
	return nil
}

func (c *captive) setFilter(p bpf.Program) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket < 0 {
		return errClosed
	}
	if err := p.Validate(bpf.Linux); err != nil {
		return err
	}
	spec, err := ebpf.User(p)
	if err != nil {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	program, err := cilium.NewCollectionWithOptions(spec, cilium.CollectionOptions{
		MapReplacements: map[string]*cilium.Map{ebpf.Counts: c.counters},
	})
	if err != nil {
		return explainBPF(err)
	}
	defer program.Close() // the slot keeps it
	return c.slot.Put(uint32(0), uint32(program.Programs[ebpf.Program].FD()))
}

func (c *captive) clearFilter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket < 0 {
		return errClosed
	}
	err := c.slot.Delete(uint32(0))
	if errors.Is(err, cilium.ErrKeyNotExist) {
		return nil
	}
	return err
}

func (c *captive) setScope(s bpf.Scope) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.socket < 0:
		return errClosed
	case c.revoked:
		return errRevoked
	case !sameProgram(c.scope, s):
		return fmt.Errorf("a captive socket keeps its policy and VLANs: %w", errors.ErrUnsupported)
	}
	err := c.addrs.Set(s.Addrs)
	if err != nil { // the program is locked: there is no larger one to be had
		return errors.Join(err, c.addrs.revoke())
	}
	c.scope = s
	return nil
}

func (c *captive) revoke() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket < 0 {
		return errClosed
	}
	c.revoked = true
	return c.addrs.revoke()
}

func (c *captive) stats() (s CaptiveStats, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket < 0 {
		return s, errClosed
	}
	sum, err := sumCounters(c.counters)
	return CaptiveStats(sum), err
}

func (c *captive) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.socket >= 0 {
		err = unix.Close(c.socket)
		c.socket = -1
	}
	if c.addrs != nil {
		c.addrs.Close()
	}
	c.counters.Close() // also if there are none
	c.slot.Close()
	return err
}
