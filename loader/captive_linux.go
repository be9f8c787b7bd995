package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
)

type captive struct {
	socket   int // -1: closed, or adopted
	cookie   uint64
	entry    guardCaptive // on the list of captives
	label    string
	link     link
	program  cilium.ProgramID // of the scope, which ends with the socket
	addrs    *addrSet
	counters *cilium.Map
	slot     *cilium.Map // a program array loses its programs with the last reference from here
	place    *cilium.Map // where the socket is, for the scope

	mu      sync.Mutex
	rules   uint32
	revoked bool
	closed  bool
}

// rulesOf is a digest of what of a scope is in the program, and cannot be
// changed.
func rulesOf(s bpf.Scope) uint32 {
	return crc32.ChecksumIEEE(fmt.Append(nil, s.Policy, s.VLANs))
}

// captive makes the socket. Each step comes before whatever it could be too
// late for.
func (w *warden) captive(cfg CaptiveConfig) (*Captive, error) {
	c, err := w.prepare(cfg)
	if err != nil {
		return nil, err
	}
	if err := w.finish(c, cfg); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// prepare does what needs no interface. Nothing comes in.
func (w *warden) prepare(cfg CaptiveConfig) (_ *Captive, err error) {
	c := &Captive{captive{socket: -1, rules: rulesOf(cfg.Scope)}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	scope, err := c.load(cfg.Scope)
	if err != nil {
		return nil, err
	}
	defer scope.Close() // the socket keeps it
	if err = w.arrest(c, cfg); err != nil {
		return nil, err
	}
	if err = c.confine(scope); err != nil {
		return nil, err
	}
	// The ring comes before the bind, which waits less then.
	if cfg.RingBytes > 0 {
		if _, err = requestRing(c.socket, cfg.RingBytes, cfg.Immediate); err != nil {
			return nil, err
		}
	}
	return c, w.label(c, cfg.Label)
}

// finish does the rest.
func (w *warden) finish(c *Captive, cfg CaptiveConfig) error {
	if cfg.Interface != "" {
		if err := c.bind(); err != nil {
			return err
		}
	}
	if err := c.mark(); err != nil {
		return err
	}
	return w.tell(c)
}

// tell tells the scope where its socket is.
func (w *warden) tell(c *Captive) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.guards == nil {
		return errClosed
	}
	place, err := w.guards.place(c.socket)
	if err != nil {
		return err
	}
	return c.place.Put(uint32(0), place)
}

func (w *warden) label(c *Captive, label string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case label == "":
		return nil
	case w.guards == nil:
		return errClosed
	}
	return w.guards.label(&c.captive, label)
}

// load loads the scope.
func (c *captive) load(s bpf.Scope) (_ *cilium.Program, err error) {
	if c.addrs, err = filled(s); err != nil {
		return nil, err
	}
	spec, err := ebpf.Captive(s, c.addrs.capacity)
	if err != nil {
		return nil, err
	}
	all, err := cilium.NewCollectionWithOptions(spec, cilium.CollectionOptions{MapReplacements: c.addrs.Maps()})
	if err != nil {
		return nil, explainBPF(err)
	}
	defer all.Close()
	c.counters, c.slot, c.place = all.DetachMap(ebpf.Counts), all.DetachMap(ebpf.Slot), all.DetachMap(ebpf.Place)
	scope := all.DetachProgram(ebpf.Program)
	info, err := scope.Info()
	if err != nil {
		return nil, errors.Join(err, scope.Close())
	}
	c.program, _ = info.ID()
	return scope, nil
}

// arrest makes the socket where every interface is guarded that it could send
// on, and lists it.
func (w *warden) arrest(c *Captive, cfg CaptiveConfig) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	g, err := w.guarded(cfg.Namespace)
	if err != nil {
		return err
	}
	// Protocol 0: nothing comes in until it is bound.
	if err = c.open(cfg); err != nil {
		return err
	}
	return w.guards.list(&c.captive, g.inode)
}

func (c *captive) open(cfg CaptiveConfig) (err error) {
	if cfg.Interface != "" {
		c.link, c.socket, err = socket(cfg.Namespace, cfg.Interface)
		return err
	}
	c.link.typ = bpf.Ethernet
	if cfg.Datagram {
		c.link.typ = bpf.LinuxSLL2
	}
	return within(cfg.Namespace, func() (err error) {
		c.socket, err = packetSocket(c.link.typ)
		return err
	})
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

// bind binds the socket for good.
func (c *captive) bind() error {
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: c.link.index}
	if err := unix.Bind(c.socket, to); err != nil {
		return fmt.Errorf("bind a captive socket to %s: %w", c.link.name, err)
	}
	return c.settleDown()
}

// settleDown makes the socket a fan-out group of its own, with room for one.
// Who is in a group can neither be bound elsewhere nor join another
// (packet_do_bind and fanout_add of net/packet/af_packet.c), by whatever system
// call.
func (c *captive) settleDown() error {
	const uniqueID = 0x2000 // PACKET_FANOUT_FLAG_UNIQUEID of linux/if_packet.h
	// struct fanout_args (Linux 5.11): id, type and flags, number of members.
	args := binary.NativeEndian.AppendUint16(nil, 0)
	args = binary.NativeEndian.AppendUint16(args, uniqueID)
	args = binary.NativeEndian.AppendUint32(args, 1)
	if err := unix.SetsockoptString(c.socket, unix.SOL_PACKET, unix.PACKET_FANOUT, string(args)); err != nil {
		return fmt.Errorf("keep a captive socket on %s (Linux 5.11): %w", c.link.name, err)
	}
	return nil
}

// mark makes the guards hold for the socket, and checks that they do by asking
// for one of the worst things: sending past the guard on sending.
func (c *captive) mark() error {
	if err := unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_MARK, captiveMark); err != nil {
		return fmt.Errorf("mark a captive socket: %w", err)
	}
	err := unix.SetsockoptInt(c.socket, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return fmt.Errorf("the guard on options of captive sockets does not answer (PACKET_QDISC_BYPASS: %v): is this process still in its cgroup?", err)
}

func (c *captive) setFilter(p bpf.Program) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
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
	if c.closed {
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
	case c.closed:
		return errClosed
	case c.revoked:
		return errRevoked
	case c.rules != rulesOf(s):
		return fmt.Errorf("a captive socket keeps its policy and VLANs: %w", errors.ErrUnsupported)
	}
	err := c.addrs.Set(s.Addrs)
	if err != nil { // the program is locked: there is no larger one to be had
		return errors.Join(err, c.addrs.revoke())
	}
	return nil
}

func (c *captive) revoke() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	c.revoked = true
	return c.addrs.revoke()
}

func (c *captive) stats() (s CaptiveStats, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
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
	c.closed = true
	if c.addrs != nil {
		c.addrs.Close()
	}
	c.counters.Close() // also if there are none
	c.slot.Close()
	c.place.Close()
	return err
}
