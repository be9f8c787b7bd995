package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// conn is a packet socket with its filter and its ring.
type conn struct {
	reading sync.Mutex // held while the ring is read
	ring    ring
	frames  frames
	left    int           // records of the ring that are to be handled before anything else
	packet  Packet        // what Read hands on
	wake    *os.File      // an eventfd(2) that ends a wait
	fds     []unix.PollFd // what a wait is for: the socket, wake, and the ring if shared, or watch
	closing atomic.Bool

	// Until the capture has moved into a hub, or cannot.
	watching bool        // one is waited for, if that can be
	watch    *os.File    // an inotify(7) that says when there is one; nil: it is not waited for
	moving   atomic.Bool // it moves there, or has found that it cannot

	broken atomic.Bool // what is in the ring may be out of scope: see setScope

	counting sync.Mutex // guards total
	total    counts

	mu        sync.Mutex // guards the rest
	fd        int        // of the socket; -1: closed
	filter    filter
	unscoped  bool
	scopeless bool    // the last setScope has failed
	final     Stats   // those at close
	asked     Config  // with the scope as it is now
	plan      plan    // with that of the beginning
	own       *roster // in which it is one of the first at the interface; nil: it is not

	// seat is the capture's place in the interface's hub; nil: it has none. shared is the
	// same when that is what is read, and not what is left in a ring of its own: whoever
	// changes it has mu, counting and reading.
	seat   atomic.Pointer[seat]
	shared *seat
}

// counts are those of PACKET_STATISTICS, which begins anew whenever it is read.
type counts struct{ received, dropped uint64 }

// setUp sets up a capture with a socket of its own.
func (t *Tap) setUp(cfg Config) error {
	if err := t.listen(cfg); err != nil {
		return err
	}
	if t.isCounted(cfg) {
		if err := t.enroll(); err != nil {
			return err
		}
	}
	return t.openPoll()
}

// listen does everything in an order in which no frame can come in before the filter is
// there: socket (see start), ring, attach, bind. The socket has protocol 0: nothing comes in
// until it is bound. With any other, packets would come in from the beginning, and would
// stay in the queue when a filter is attached (packet(7); packet_create in
// net/packet/af_packet.c).
func (t *Tap) listen(cfg Config) (err error) {
	// The ring comes before the bind: else packets would wait in the socket's ordinary
	// queue, and the kernel would take the socket off the interface and put it back to
	// exchange one for the other. It comes before the filter too: the time after which the
	// kernel hands over blocks that are not full runs from here on, and a ring that is
	// made right behind a filter may wait for one more grace period.
	if t.ring, err = requestRing(t.fd, cfg.RingBytes, cfg.Immediate); err != nil {
		return err
	}
	// The filter is there before anything that it could be too late for.
	if err = t.attach(cfg); err != nil {
		return err
	}
	if err = t.ask(cfg); err != nil {
		return err
	}

	// From here on packets come in, and wait in the ring until it is mapped.
	if err = t.bind(); err != nil {
		return err
	}
	return t.ring.mapFrom(t.fd)
}

// openPoll lets a wait be ended.
func (t *Tap) openPoll() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	t.wake = os.NewFile(uintptr(fd), "eventfd")
	t.fds = []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}, {Fd: int32(fd), Events: unix.POLLIN}}
	return nil
}

// ask says what else is wanted of the interface.
func (t *Tap) ask(cfg Config) error {
	if cfg.Promiscuous && t.link.index != 0 {
		mreq := &unix.PacketMreq{Ifindex: int32(t.link.index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(t.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, mreq); err != nil {
			return fmt.Errorf("make %s promiscuous: %w", t.link.name, err)
		}
	}
	if cfg.Direction == In {
		// It saves room in the ring, where the kernel knows it (Linux 4.20);
		// frames.wanted decides.
		unix.SetsockoptInt(t.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	return nil
}

func (t *Tap) bind() error {
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: t.link.index}
	if err := unix.Bind(t.fd, to); err != nil {
		return t.explain(err)
	}
	// That the interface is down is not an error of bind, but one that waits.
	return t.waitingError()
}

// waitingError fetches the error that waits in the socket (SO_ERROR).
func (t *Tap) waitingError() error {
	errno, err := unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return t.explain(err)
}

// socketError is the error of the socket that gets the packets. A hub's is left where it
// is, since others wait for it too, and is of one kind.
func (t *Tap) socketError() error {
	if t.shared != nil {
		return t.explain(unix.ENETDOWN)
	}
	return t.waitingError()
}

// explain says what an error of the socket means for the interface.
func (t *Tap) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENETDOWN) && !exists(t.fd, t.link):
		err = fmt.Errorf("%w (%w)", ErrInterfaceGone, err)
	case errors.Is(err, unix.ENETDOWN):
		err = fmt.Errorf("%w (%w)", ErrInterfaceDown, err)
	}
	return fmt.Errorf("capture on %s: %w", t.link.name, err)
}

func (t *Tap) setScope(s bpf.Scope) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return errClosed
	}
	if t.unscoped {
		return errUnscoped
	}
	err := t.filter.setScope(t.fd, s)
	t.asked.Scope, t.scopeless = s, err != nil
	if errors.Is(err, errStillOpen) { // the old scope may be the wider one
		t.broken.Store(true)
	}
	return err
}

func (t *Tap) stats() (Stats, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return t.final, nil
	}
	return t.tally()
}

func (t *Tap) tally() (Stats, error) {
	total, err := t.count()
	if err != nil {
		return Stats{}, err
	}
	if seat := t.seat.Load(); seat != nil {
		total.received -= seat.rejected.Load()
	}
	s := Stats{Received: total.received, Dropped: total.dropped}
	if err := t.filter.count(&s); err != nil {
		return Stats{}, err
	}
	if n, ok := t.frames.matchedHere(); ok {
		s.Matched = &n
	}
	return s, nil
}

// count is what has come so far, by the own socket and from the hub. It does not wait for
// a setScope that is under way.
func (t *Tap) count() (counts, error) {
	total, err := t.countRing()
	if seat := t.seat.Load(); seat != nil && err == nil {
		var got hubCount
		got, err = seat.got()
		total.received += got.Received
		total.dropped += got.Dropped
	}
	return total, err
}

// countRing adds to the total what the kernel has counted for the own socket since the last
// time, in 32 bits.
func (t *Tap) countRing() (counts, error) {
	t.counting.Lock()
	defer t.counting.Unlock()
	if t.shared != nil { // it has got all that it will
		return t.total, nil
	}
	s, err := unix.GetsockoptTpacketStatsV3(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return t.total, fmt.Errorf("packet counts of %s: %w", t.link.name, err)
	}
	t.total.received += uint64(s.Packets)
	t.total.dropped += uint64(s.Drops)
	return t.total, nil
}

// arrived is how many frames have been put into the rings so far.
func (t *Tap) arrived() uint64 {
	total, _ := t.count() // if it fails, what is known must do
	return total.received - total.dropped
}

// arrivedInRing is arrived for the own ring.
func (t *Tap) arrivedInRing() uint64 {
	total, _ := t.countRing()
	return total.received - total.dropped
}

func (t *Tap) close() error {
	t.closing.Store(true)
	t.wakeUp()
	t.reading.Lock()
	defer t.reading.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd < 0 {
		return t.leave()
	}
	if t.filter != nil {
		t.final, _ = t.tally()
		defer t.filter.close()
	}
	err := errors.Join(t.ring.close(), unix.Close(t.fd), t.leave())
	if t.wake != nil {
		err = errors.Join(err, t.wake.Close())
	}
	t.fd = -1
	return err
}

// leave gives up the capture's place among those at the interface.
func (t *Tap) leave() (err error) {
	if t.own != nil {
		err = t.own.close()
		t.own = nil
	}
	if seat := t.seat.Load(); seat != nil && t.fd >= 0 {
		err = errors.Join(err, seat.close())
	}
	return errors.Join(err, t.endWatch())
}

// wakeUp ends a wait.
func (t *Tap) wakeUp() {
	if t.wake != nil {
		t.wake.Write([]byte{7: 1}) // any number but 0; eventfd(2)
	}
}

// networkOrder is v with its bytes in the order that htons(3) gives.
func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}
