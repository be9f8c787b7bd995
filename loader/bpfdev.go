package loader

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"jailtap/bpf"
)

// A device is an open bpf(4) device. What uses it is here and not in
// tap_freebsd.go so that its order can be tested on any system.
type device interface {
	// number is an ioctl(2) with a u_int for its argument, or with none. It
	// returns what the argument is afterwards.
	number(r request, n uint32) (uint32, error)
	program(r request, p bpf.Program) error
	attach(ifname string) (index int, err error)   // BIOCSETIF
	counts() (received, dropped uint32, err error) // BIOCGSTATS
	read(b []byte) (int, error)                    // at once; b is as long as the device's buffers
	wait(limit time.Duration) error                // until there is something to read, wake, or the limit
	wake()                                         // ends a wait
	close() error
}

// A request is an ioctl(2) of bpf(4), by its name in net/bpf.h.
type request string

const (
	setBufferLength  request = "BIOCSBLEN"
	setFilter        request = "BIOCSETF"
	setFilterNoFlush request = "BIOCSETFNR"
	setWriteFilter   request = "BIOCSETWF"
	setStampFormat   request = "BIOCSTSTAMP"
	setDirection     request = "BIOCSDIRECTION"
	setImmediate     request = "BIOCIMMEDIATE"
	setPromiscuous   request = "BIOCPROMISC"
	getLinkType      request = "BIOCGDLT"
	lock             request = "BIOCLOCK"
)

// bpfConn is a capture through bpf(4). In contrast to a packet socket
//   - frames are captured as files hold them, with VLAN tags in the frame;
//   - a frame does not tell whether it was sent or received;
//   - what fits no buffer is cut, not dropped, if the buffer is empty;
//   - an interface that is down is captured from once it is up.
type bpfConn struct {
	// As set up.
	dev      device
	name     string // of the interface
	view     bpf.View
	user     bpf.Program
	snaplen  int
	unscoped bool
	locked   bool

	reading sync.Mutex // held while the device is read
	buf     []byte
	records bpfRecords
	out     Packet
	taken   atomic.Uint64 // frames that were read
	closing atomic.Bool
	broken  atomic.Bool // what is read may be out of scope: see setScope

	counting sync.Mutex // guards last, total
	last     counters   // as the device had them
	total    struct{ received, dropped uint64 }

	mu     sync.Mutex // guards closed, final, and programs being set
	closed bool
	final  Stats // those at close
}

// counters are struct bpf_stat.
type counters struct{ received, dropped uint32 }

// bpfHas says what of a configuration bpf(4) does not have.
func bpfHas(cfg Config) error {
	switch {
	case cfg.Namespace != nil:
		return fmt.Errorf("captures in another network stack: %w here: run jailtap in it, with jexec(8)", errors.ErrUnsupported)
	case cfg.Interface == Any:
		return fmt.Errorf("interface %q: %w here: bpf(4) captures on one interface, so name it", Any, errors.ErrUnsupported)
	case cfg.Engine == EBPF:
		return fmt.Errorf("engine %s: %w here: bpf(4) runs classic programs, which is engine %s", EBPF, errors.ErrUnsupported, CBPF)
	case cfg.Engine != "" && cfg.Engine != Auto && cfg.Engine != CBPF:
		return fmt.Errorf("unknown engine %q: known are %s, %s", cfg.Engine, Auto, CBPF)
	}
	return nil
}

// setUp does everything in an order in which no frame out of scope can be
// buffered. The scope's program depends on the link type, which only an attached
// device tells. So a program that rejects everything is there first, and stays
// until the scope's takes its place.
func (c *bpfConn) setUp(cfg Config) (l link, err error) {
	c.name, c.unscoped, c.snaplen = cfg.Interface, cfg.NoScope, cfg.snaplen()
	c.out.Outgoing = cfg.Direction == Out
	if err = c.beforeAttaching(cfg); err != nil {
		return l, err
	}
	l.name = cfg.Interface
	l.index, err = c.dev.attach(cfg.Interface)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return l, &InterfaceError{Name: cfg.Interface, Known: interfaces(), Err: err}
	case err != nil:
		return l, c.explain(fmt.Errorf("BIOCSETIF: %w", err))
	}
	dlt, err := c.dev.number(getLinkType, 0)
	if err != nil {
		return l, c.explain(fmt.Errorf("%s: %w", getLinkType, err))
	}
	l.typ = bpf.LinkType(dlt)
	return l, c.afterAttaching(cfg, l.typ)
}

// beforeAttaching does what does not need the interface, and what is not
// possible any more with one (BIOCSBLEN).
func (c *bpfConn) beforeAttaching(cfg Config) error {
	if err := c.install(setFilter, returns(0)); err != nil {
		return err
	}
	// The device is open for reading only; this is for whoever it is passed to.
	if err := c.install(setWriteFilter, returns(0)); err != nil {
		return err
	}
	n, err := c.dev.number(setBufferLength, bufferLength(cfg))
	if err != nil {
		return fmt.Errorf("%s %d: %w", setBufferLength, bufferLength(cfg), err)
	}
	c.buf = make([]byte, n)
	c.records.format = stampNano
	if err := c.set(setStampFormat, uint32(c.records.format)); err != nil {
		return err
	}
	if err := c.set(setDirection, directions[cfg.Direction]); err != nil {
		return err
	}
	if cfg.Immediate {
		return c.set(setImmediate, 1)
	}
	return nil
}

// afterAttaching lets frames in scope pass.
func (c *bpfConn) afterAttaching(cfg Config, lt bpf.LinkType) (err error) {
	c.view = bpf.View{LinkType: lt}
	if c.user, err = cfg.userProgram(lt, bpf.FreeBSD); err != nil {
		return err
	}
	if cfg.Promiscuous && lt == bpf.Ethernet { // others have no MACs
		if err := c.set(setPromiscuous, 0); err != nil {
			return err
		}
	}
	if err := c.enforce(cfg.Scope); err != nil {
		return err
	}
	if !cfg.ScopeChanges {
		c.locked = true
		return c.set(lock, 0)
	}
	return nil
}

// directions are BPF_D_IN, BPF_D_INOUT and BPF_D_OUT.
var directions = map[Direction]uint32{In: 0, InOut: 1, "": 1, Out: 2}

// bufferLength is half of what may wait to be read, since there are two
// buffers, but has room for the longest frame that offloading makes.
func bufferLength(cfg Config) uint32 {
	const usual, least, most = 2 << 20, 1 << 17, 1 << 30
	if cfg.RingBytes <= 0 {
		return usual / 2
	}
	return uint32(min(max(cfg.RingBytes/2, least), most)) // the system clamps it (net.bpf.maxbufsize)
}

// enforce puts the scope's program in the place of the one that is there. Each
// frame meets the one or the other.
//
// BIOCSETF would throw away what waits to be read, and zero the counters. It
// would also take a program that is one return for a snaplen, and not capture
// until another one is set, where net.bpf.optimize_writers is on
// (bpf_check_upgrade in sys/net/bpf.c).
func (c *bpfConn) enforce(s bpf.Scope) error {
	if c.unscoped {
		return c.install(setFilterNoFlush, c.user)
	}
	program, err := bpf.Compile(s, c.view, bpf.FreeBSD, c.user)
	if err != nil {
		return err
	}
	if err := bpf.Prove(program, s, c.view); err != nil {
		return fmt.Errorf("the program is not attached: %w", err)
	}
	return c.install(setFilterNoFlush, program)
}

func (c *bpfConn) install(r request, p bpf.Program) error {
	err := c.dev.program(r, p)
	if errors.Is(err, syscall.EINVAL) {
		err = fmt.Errorf("%w: does the sysctl net.bpf.maxinsns allow fewer?", err)
	}
	if err != nil {
		return fmt.Errorf("%s with a program of %d instructions: %w", r, len(p), err)
	}
	return nil
}

func (c *bpfConn) set(r request, n uint32) error {
	if _, err := c.dev.number(r, n); err != nil {
		return c.explain(fmt.Errorf("%s: %w", r, err))
	}
	return nil
}

// explain says what an error of the device means for the interface.
func (c *bpfConn) explain(err error) error {
	if errors.Is(err, syscall.ENXIO) {
		err = fmt.Errorf("%w (%w)", ErrInterfaceGone, err)
	}
	return fmt.Errorf("capture on %s: %w", c.name, err)
}

var errLocked = errors.New("the filter is locked (BIOCLOCK): only a capture that was opened with ScopeChanges takes another scope")

func (c *bpfConn) setScope(s bpf.Scope) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return errClosed
	case c.unscoped:
		return errUnscoped
	case c.locked:
		c.broken.Store(true) // the old scope may be the wider one
		return errLocked
	}
	err := c.enforce(s)
	if err == nil {
		return nil
	}
	if also := c.install(setFilterNoFlush, returns(0)); also != nil {
		c.broken.Store(true)
		err = fmt.Errorf("%w; the old scope is still in force: %w", err, also)
	}
	return err
}

func (c *bpfConn) stats() (Stats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.final, nil
	}
	return c.tally()
}

// tally counts as seen what the device calls received: the frames that the
// filter was asked about. What passed it is known when it is read.
func (c *bpfConn) tally() (Stats, error) {
	c.counting.Lock()
	defer c.counting.Unlock()
	if err := c.count(); err != nil {
		return Stats{}, err
	}
	seen := c.total.received
	return Stats{Received: c.taken.Load() + c.total.dropped, Dropped: c.total.dropped, Seen: &seen}, nil
}

// count adds to the total what the device has counted since the last time, in
// 32 bits.
func (c *bpfConn) count() error {
	received, dropped, err := c.dev.counts()
	if err != nil {
		return fmt.Errorf("packet counts of %s: %w", c.name, err)
	}
	c.total.received += uint64(received - c.last.received)
	c.total.dropped += uint64(dropped - c.last.dropped)
	c.last = counters{received, dropped}
	return nil
}

func (c *bpfConn) close() error {
	c.closing.Store(true)
	c.wakeUp()
	c.reading.Lock()
	defer c.reading.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.final, _ = c.tally()
	return c.dev.close()
}

func (c *bpfConn) wakeUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.dev.wake()
	}
}
