package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// errNotShared is wrapped by errors about captures that a hub cannot serve.
var errNotShared = errors.New("not through the interface's hub")

// open opens a capture, with a socket of its own or through the interface's hub.
func open(cfg Config) (*Tap, error) {
	if !slices.Contains([]Hub{"", HubAuto, HubAlways, HubNever}, cfg.Hub) {
		return nil, fmt.Errorf("unknown use of the hub %q: known are %s, %s, %s", cfg.Hub, HubAuto, HubAlways, HubNever)
	}
	cfg.Filter = once(cfg.Filter)
	t, err := start(cfg)
	if err != nil {
		return nil, err
	}
	var why error // it does not share a hub
	for share := t.mustShare(cfg); ; {
		setUp := (*Tap).setUp
		if share {
			setUp = (*Tap).setUpShared
		}
		err := t.setUpOrClose(setUp, cfg)
		switch {
		case err == nil && why == nil:
			return t, nil
		case err == nil:
			t.reason += "; " + why.Error()
			return t, nil
		case errors.Is(err, errNotFirst):
			share = true
		case share:
			share, why, cfg.Hub = false, err, HubNever
		default:
			return nil, err
		}
		if t, err = start(cfg); err != nil {
			return nil, err
		}
	}
}

// once is a filter that is asked for its program once, also where that is tried in more
// ways than one.
func once(filter func(bpf.LinkType) (bpf.Program, error)) func(bpf.LinkType) (bpf.Program, error) {
	if filter == nil {
		return nil
	}
	var made bool
	var p bpf.Program
	var err error
	return func(lt bpf.LinkType) (bpf.Program, error) {
		if !made {
			made = true
			p, err = filter(lt)
		}
		return p, err
	}
}

// start makes what captures of both kinds have: a socket to which no packets come yet.
func start(cfg Config) (*Tap, error) {
	l, fd, err := socket(cfg.Namespace, cfg.Interface)
	if err != nil {
		return nil, err
	}
	return &Tap{link: l, conn: conn{fd: fd, unscoped: cfg.NoScope, asked: cfg}}, nil
}

func (t *Tap) setUpOrClose(setUp func(*Tap, Config) error, cfg Config) error {
	err := setUp(t, cfg)
	if err != nil {
		t.close()
	}
	return err
}

// isCounted reports whether it is a capture whose turn it may be to share a hub.
func (t *Tap) isCounted(cfg Config) bool {
	return cfg.Hub != HubAlways && cfg.Hub != HubNever && cfg.mayShare() && shareable(cfg, t.link) == nil
}

// mustShare reports whether the capture is to share the interface's hub, as far as can be
// seen before it has a place.
func (t *Tap) mustShare(cfg Config) bool {
	return cfg.Hub == HubAlways || t.isCounted(cfg) && crowded(t.fd, t.link)
}

// errNotFirst is about a capture that seemed to be one of the first.
var errNotFirst = errors.New("others were first")

// enroll takes a place in the interface's roster for one of the first captures. It comes
// when packets come in already: they wait in the ring meanwhile, and nobody has them before
// the place is taken. So a hub is always newer than the sockets of those that have a place
// (see hubmove_linux.go).
func (t *Tap) enroll() error {
	r, err := openRoster(t.fd, t.link)
	if err != nil { // then it is not one of those that are counted
		return nil
	}
	if !r.hasHub() && r.takeOwn() {
		t.own = r
		return r.unlock()
	}
	r.leave()
	return errNotFirst
}

// mostShared is how many addresses a capture may have that does not ask for a hub. Each is
// in the hub's lists, which are for all.
const mostShared = 1024

// mayShare reports whether a capture that does not ask for a hub may be in one: nothing
// was asked for that contradicts it, nor would all frames be shown to its program.
func (cfg Config) mayShare() bool {
	return (cfg.Engine == Auto || cfg.Engine == "") && !cfg.NoScope && cfg.Interface != Any &&
		len(cfg.Scope.Addrs) <= mostShared && singleAddresses(cfg.Scope)
}

// singleAddresses reports whether the hub's lists can say which frames are in scope, but
// for those to many.
func singleAddresses(s bpf.Scope) bool {
	return s.VLANs.None() && !slices.ContainsFunc(s.Addrs, func(p netip.Prefix) bool { return !p.IsSingleIP() })
}

// shareable says why a capture at an interface cannot share a hub. That knows Ethernet;
// on loopback each frame comes twice.
func shareable(cfg Config, l link) error {
	if cfg.NoScope || cfg.Engine == CBPF {
		return errors.New("it needs a scope, and the engine ebpf")
	}
	if l.typ != bpf.Ethernet || l.index == 0 {
		return fmt.Errorf("frames on %s are not Ethernet", l.name)
	}
	if l.loopback {
		return fmt.Errorf("%s is a loopback interface", l.name)
	}
	return nil
}

// setUpShared is setUp for a capture that shares the interface's hub. Here too nothing
// comes in before all that limits it is there: the addresses that have frames shown to
// the scope's program come last.
func (t *Tap) setUpShared(cfg Config) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", errNotShared, err)
		}
	}()
	if err = shareable(cfg, t.link); err != nil {
		return err
	}
	p, err := t.planFor(cfg)
	if err != nil {
		return err
	}
	s, err := t.seatIn(cfg, p, func(h *hub) error { return h.make(cfg.Namespace, t.link) })
	if err != nil {
		return err
	}
	t.shared = s
	t.seat.Store(s)
	return t.takeSeat(cfg, p)
}

// seatIn is a place in the hub, which make makes if there is none.
func (t *Tap) seatIn(cfg Config, p plan, make func(*hub) error) (*seat, error) {
	program := p.user
	if t.frames.program != nil { // that has it
		program = nil
	}
	if err := sharedProgram(program); err != nil {
		return nil, err
	}
	h, err := openHub(t.fd, t.link, make)
	if err != nil {
		return nil, err
	}
	return &seat{hub: h, wants: wantsOf(cfg), immediate: cfg.Immediate, grouped: grouped{ifindex: t.link.index, program: program}}, nil
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
	addrs     []netip.Prefix // by which the hub has frames shown to its program
	watching  bool           // it has all frames shown to it
	immediate bool
	ring      *cilium.Map
	reader    *hubReader
	before    [2]uint64 // frames that the hub had looked at, received and sent
}

// takeSeat fills the places of the capture's number. Its own socket gets no packets: by
// it the interface is promiscuous, or asked about.
func (t *Tap) takeSeat(cfg Config, p plan) (err error) {
	s := t.shared
	f, err := s.fill(t.fd, cfg.RingBytes, p)
	if err != nil {
		return err
	}
	t.filter = f
	t.is(EBPF, inHub)
	if err = t.ask(cfg); err != nil {
		return err
	}
	if err = t.openPoll(); err != nil {
		return err
	}
	t.pollSeat()
	if s.before, err = s.looked(); err != nil {
		return err
	}
	// From here on packets come in.
	return f.show(p.scope)
}

const inHub = "it shares the interface's hub"

// fill makes what the seat has of its own: the ring, and the scope's program with its maps.
func (s *seat) fill(fd, ringBytes int, p plan) (*sharedFilter, error) {
	if err := s.makeRing(ringBytes); err != nil {
		return nil, err
	}
	f := &sharedFilter{seat: s, maps: withMaps{plan: p, addrs: &addrSet{}, put: s.putScope}}
	if err := f.maps.install(fd, p.scope); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// pollSeat makes a wait one for what the hub gives.
func (t *Tap) pollSeat() {
	const pollsSocket, pollsWake = 0, 1
	t.fds = append(t.fds[:pollsWake+1:pollsWake+1], unix.PollFd{Fd: int32(t.shared.reader.wakes), Events: unix.POLLIN})
	t.fds[pollsSocket].Fd = int32(t.shared.socket) // whose error says that the interface is down
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

// close gives the seat up.
func (s *seat) close() error {
	var errs []error
	if s.reader != nil {
		errs = append(errs, s.reader.close())
	}
	return errors.Join(append(errs, s.hub.leave(s.addrs), s.ring.Close())...)
}

// A sharedFilter is withMaps in a hub.
type sharedFilter struct {
	seat *seat
	maps withMaps
	torn bool // perhaps the hub does not have what is in seat
}

// show has the hub show the capture's program the frames that s may be about. At each
// moment it is shown those that the scopes before and after have in common, once.
func (f *sharedFilter) show(s bpf.Scope) error {
	return f.seat.locked(func() error {
		err := errHubFull
		if singleAddresses(s) {
			err = f.list(canonical(s.Addrs))
		}
		if errors.Is(err, errHubFull) {
			err = f.watch()
		}
		return err
	})
}

// list has it shown frames of some addresses, and those to many that it wants.
func (f *sharedFilter) list(addrs []netip.Prefix) error {
	gone, come := diff(f.seat.addrs, addrs)
	if f.torn {
		come = addrs
	}
	f.torn = true
	if err := f.seat.remove(gone); err != nil {
		return err
	}
	f.seat.addrs = addrs
	if err := f.seat.add(come); err != nil {
		return err
	}
	if err := f.want(f.seat.wants); err != nil {
		return err
	}
	f.torn, f.seat.watching = false, false
	return f.seat.unwatch(f.seat.id)
}

// watch has it shown all frames.
func (f *sharedFilter) watch() error {
	f.torn = true
	if err := f.seat.watch(); err != nil {
		return err
	}
	if !f.seat.watching { // some look at the lists still
		awaitPrograms()
	}
	f.seat.watching = true
	addrs := f.seat.addrs
	f.seat.addrs = nil
	if err := f.seat.remove(addrs); err != nil {
		return err
	}
	if err := f.want(f.seat.wants & wantsReceivedOnly); err != nil {
		return err
	}
	f.torn = false
	return nil
}

// want sets which frames to many it gets because of what they are.
func (f *sharedFilter) want(wants uint32) error {
	return errors.Join(f.seat.Wants.Put(f.seat.id, wants), f.seat.group(f.seat.id, wants))
}

func (f *sharedFilter) setScope(fd int, s bpf.Scope) error {
	if err := f.change(fd, s); err != nil {
		return f.failClosed(err)
	}
	return nil
}

func (f *sharedFilter) change(fd int, s bpf.Scope) error {
	direction := InOut
	if f.seat.wants&wantsReceivedOnly != 0 {
		direction = In
	}
	wants := wantsOf(Config{Scope: s, Direction: direction})
	if f.seat.wants&^wants != 0 && !f.seat.watching { // what goes, goes first
		if err := f.seat.Wants.Put(f.seat.id, f.seat.wants&wants); err != nil {
			return err
		}
	}
	f.seat.wants = wants
	if err := f.maps.change(fd, s); err != nil {
		return err
	}
	return f.show(s)
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
