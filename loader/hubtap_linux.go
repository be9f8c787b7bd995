package loader

import (
	"errors"
	"fmt"
	"net/netip"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// errNotShared is wrapped by errors about captures that a hub cannot serve.
var errNotShared = errors.New("not through the interface's hub")

// setUpShared is setUp for a capture that shares the interface's hub. Here too nothing
// comes in before all that limits it is there: the addresses that have frames shown to
// the scope's program come last.
func (t *Tap) setUpShared(cfg Config) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", errNotShared, err)
		}
	}()
	if t.link, t.fd, err = socket(cfg.Namespace, cfg.Interface); err != nil {
		return err
	}
	if err = shareable(cfg, t.fd, t.link); err != nil {
		return err
	}
	p, err := t.plan(cfg)
	if err != nil {
		return err
	}
	namespace, err := namespaceInode(cfg.Namespace)
	if err != nil {
		return err
	}
	h, err := openHub(namespace, t.link.index)
	if err != nil {
		return err
	}
	defer h.unlock() // when it is closed, that has done it
	t.shared = &seat{hub: h, wants: wantsOf(cfg), grouped: grouped{ifindex: t.link.index}}
	if t.frames.program == nil {
		t.shared.program, err = sharedProgram(p.user)
	}
	if err == nil {
		err = t.takeSeat(cfg, p)
	}
	return err
}

// shareable says why a capture cannot share a hub. The hub knows single addresses and
// untagged Ethernet frames; on loopback each frame comes twice.
func shareable(cfg Config, fd int, l link) error {
	if l.typ != bpf.Ethernet || l.index == 0 {
		return fmt.Errorf("frames on %s are not Ethernet", l.name)
	}
	if cfg.NoScope || cfg.Engine == CBPF {
		return errors.New("it needs a scope, and the engine ebpf")
	}
	ifr, err := unix.NewIfreq(l.name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr)
	}
	if err != nil {
		return fmt.Errorf("flags of %s: %w", l.name, err)
	}
	if ifr.Uint16()&unix.IFF_LOOPBACK != 0 {
		return fmt.Errorf("%s is a loopback interface", l.name)
	}
	return shareableScope(cfg.Scope)
}

func shareableScope(s bpf.Scope) error {
	if !s.VLANs.None() {
		return errors.New("the scope has VLANs")
	}
	for _, p := range canonical(s.Addrs) {
		if !p.IsSingleIP() {
			return fmt.Errorf("the scope has a network, %v", p)
		}
	}
	return nil
}

func wantsOf(cfg Config) (wants uint32) {
	switch cfg.Scope.Policy {
	case bpf.Full:
		wants = wantsGroupIPv4 | wantsGroupFull
	case bpf.Classic:
		wants = wantsGroupIPv4
	}
	if cfg.Direction == In {
		wants |= wantsReceivedOnly
	}
	return wants
}

// A seat is a capture's place in a hub.
type seat struct {
	*hub
	grouped
	wants     uint32
	addrs     []netip.Prefix // that the hub has for it
	immediate bool
	ring      *cilium.Map
	reader    *hubReader
	before    [2]uint64 // frames that the hub had looked at, received and sent
}

// takeSeat takes a number in the hub, fills its places, and joins the group of sockets.
func (t *Tap) takeSeat(cfg Config, p plan) (err error) {
	s := t.shared
	s.immediate = cfg.Immediate
	if err = s.claim(); err != nil {
		return err
	}
	if err = s.makeRing(cfg.RingBytes); err != nil {
		return err
	}
	f := &sharedFilter{seat: s, maps: withMaps{plan: p, addrs: &addrSet{}, put: s.putScope}}
	if err = f.maps.install(t.fd, p.scope); err != nil {
		f.close()
		return err
	}
	t.filter, t.engine, t.reason = f, EBPF, "it shares the interface's hub"
	if err = t.ask(cfg); err != nil {
		return err
	}
	if err = t.enterGroup(); err != nil {
		return err
	}
	if err = t.openPoll(); err != nil {
		return err
	}
	t.fds = append(t.fds, unix.PollFd{Fd: int32(s.reader.wakes), Events: unix.POLLIN})
	if s.before, err = s.looked(); err != nil {
		return err
	}
	// From here on packets come in.
	return f.open(p.scope)
}

// enterGroup makes the socket one of the group. While it is bound and not yet of the
// group packets come to both: so the hub's program is put on it at the end. Until then
// it takes nothing.
func (t *Tap) enterGroup() error {
	if err := rejectAll(t.fd); err != nil {
		return err
	}
	if err := t.bind(); err != nil {
		return err
	}
	if err := t.shared.enter(t.fd); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, t.shared.Hub.FD()); err != nil {
		return fmt.Errorf("attach the hub's program: %w", err)
	}
	return nil
}

// putScope makes p the program that says what of a frame the capture may have.
func (s *seat) putScope(p *cilium.Program) error { return s.Scopes.Put(s.id, p) }

// looked is how many frames the hub has looked at: received, and sent.
func (s *seat) looked() (n [2]uint64, err error) {
	for i := range n {
		var each []uint64
		if err := s.Seen.Lookup(uint32(i), &each); err != nil {
			return n, fmt.Errorf("read the hub's counters: %w", err)
		}
		for _, c := range each {
			n[i] += c
		}
	}
	return n, nil
}

// got is what has come for the capture.
func (s *seat) got() (c hubCount, err error) {
	if err = s.Counts.Lookup(s.id, &c); err != nil {
		err = fmt.Errorf("read the hub's counts: %w", err)
	}
	return c, err
}

// close gives the seat up, with its socket.
func (s *seat) close(fd int) error {
	var errs []error
	if s.reader != nil {
		errs = append(errs, s.reader.close())
	}
	errs = append(errs, s.hub.leave(fd, s.addrs))
	return errors.Join(append(errs, s.ring.Close())...)
}

// A sharedFilter is withMaps in a hub.
type sharedFilter struct {
	seat *seat
	maps withMaps
	torn bool // perhaps the hub does not have all of seat.addrs
}

// open has the hub deliver frames in s.
func (f *sharedFilter) open(s bpf.Scope) error {
	want := canonical(s.Addrs)
	gone, come := diff(f.seat.addrs, want)
	if f.torn {
		come = want
	}
	f.torn = true
	if err := f.seat.remove(gone); err != nil {
		return err
	}
	f.seat.addrs = want
	if err := f.seat.add(come); err != nil {
		return err
	}
	if err := f.seat.Wants.Put(f.seat.id, f.seat.wants); err != nil {
		return err
	}
	f.torn = false
	return nil
}

func (f *sharedFilter) setScope(fd int, s bpf.Scope) error {
	if err := f.change(fd, s); err != nil {
		return f.failClosed(err)
	}
	return nil
}

func (f *sharedFilter) change(fd int, s bpf.Scope) error {
	if err := shareableScope(s); err != nil {
		return fmt.Errorf("%w any more: %w", errNotShared, err)
	}
	direction := InOut
	if f.seat.wants&wantsReceivedOnly != 0 {
		direction = In
	}
	wants := wantsOf(Config{Scope: s, Direction: direction})
	if f.seat.wants&^wants != 0 { // what goes, goes first
		if err := f.seat.Wants.Put(f.seat.id, f.seat.wants&wants); err != nil {
			return err
		}
	}
	f.seat.wants = wants
	if err := f.maps.change(fd, s); err != nil {
		return err
	}
	if err := f.seat.lock(); err != nil {
		return err
	}
	defer f.seat.unlock()
	return f.open(s)
}

// failClosed ends what the capture gets because of err, which it returns.
func (f *sharedFilter) failClosed(err error) error {
	f.maps.attached, f.torn = false, true
	also := f.seat.Wants.Put(f.seat.id, uint32(0))
	if gone := f.seat.Scopes.Delete(f.seat.id); !errors.Is(gone, cilium.ErrKeyNotExist) {
		also = errors.Join(also, gone)
	}
	if also != nil {
		return fmt.Errorf("%w; %w: %w", err, errStillOpen, also)
	}
	return err
}

// count adds to what the scope's program has counted the frames that it was not asked
// about: those that do not concern the capture, and those to many.
func (f *sharedFilter) count(s *Stats) error {
	sum, err := sumCounters(f.maps.counters)
	if err != nil {
		return err
	}
	got, err := f.seat.got()
	if err != nil {
		return err
	}
	looked, err := f.seat.looked()
	if err != nil {
		return err
	}
	seen := looked[0] - f.seat.before[0]
	if f.seat.wants&wantsReceivedOnly == 0 {
		seen += looked[1] - f.seat.before[1]
	}
	inScope, matched := sum.InScope+got.Group, sum.Matched+got.Group-f.seat.rejected.Load()
	s.Seen, s.InScope, s.Matched = &seen, &inScope, &matched
	return nil
}

func (f *sharedFilter) close() { f.maps.close() }
