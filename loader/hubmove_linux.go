package loader

import (
	"errors"
	"fmt"
	"os"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A capture with a socket of its own moves into the interface's hub when there is one, so
// that what a packet costs there does not depend on who came first.
//
// No frame is lost by it, or comes twice. While both are at the interface the hub, which is
// the newer one, is asked about each frame first. From some moment on it gives frames to the
// capture, and notes down on which CPUs it has (moved of hub.bpf.c). Then the own socket is
// asked about the same frame, on the same CPU, and rejects it if that is noted down. What is
// left in its ring is read before what the hub has given.

// errNoMove is about a capture that stays where it is.
var errNoMove = errors.New("it has a socket of its own still")

// watchForHub has waits end when others write into the roster of the interface. If it cannot
// be had, because there are too many such already (fs.inotify.max_user_instances), the
// capture does not move.
func (t *Tap) watchForHub() {
	t.watching = true
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return
	}
	t.watch = os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, t.own.file.Name(), unix.IN_MODIFY); err != nil {
		t.endWatch()
		return
	}
	t.fds = append(t.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	if t.own.hasHub() { // and was written into before
		t.moveSoon()
	}
}

func (t *Tap) endWatch() (err error) {
	if t.watch != nil {
		err = t.watch.Close()
		t.watch = nil
	}
	return err
}

// moveSoon has the capture moved while it is read. The watch is not looked at meanwhile, and
// again only if there was no hub any more, or no way to its roster.
func (t *Tap) moveSoon() {
	t.moving.Store(true)
	go func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		err := t.move()
		later := errors.Is(err, errNoHub) || errors.Is(err, errBusy)
		if err != nil && !later {
			t.is(t.engine, t.reason+"; "+err.Error())
		}
		t.moving.Store(!later)
		t.wakeUp()
	}()
}

// move does all of it but to read the hub's ring.
func (t *Tap) move() error {
	if t.fd < 0 || t.scopeless || !t.asked.mayShare() {
		return errNoMove
	}
	p := t.plan
	p.scope = t.asked.Scope
	s, err := t.seatIn(t.asked, p, func(*hub) error { return errNoHub })
	if err != nil {
		return fmt.Errorf("%w: %w", errNoMove, err)
	}
	f, err := t.settle(s, p)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", errNoMove, err), s.close())
	}
	moved := &movedFilter{sharedFilter: f}
	t.filter.count(&moved.before) // if it fails, nothing is known
	t.filter.close()
	t.filter = moved
	t.is(EBPF, inHub)
	t.seat.Store(s)
	return nil
}

// settle brings the seat to where the capture gets its frames from the hub.
func (t *Tap) settle(s *seat, p plan) (_ *sharedFilter, err error) {
	wants := s.wants
	s.wants |= wantsNothingYet
	f, err := s.fill(t.fd, t.asked.RingBytes, p)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if err = s.locked(func() error { return f.list(canonical(p.scope.Addrs)) }); err != nil {
		return nil, err
	}
	if s.before, err = s.looked(); err != nil {
		return nil, err
	}
	if err = t.leaveMoved(s); err != nil {
		return nil, err
	}
	s.wants = wants
	if err = t.openSeat(s); err != nil {
		// What the own socket rejects now may not come from the hub.
		t.broken.Store(true)
	}
	return f, err
}

// leaveMoved has the own socket leave the hub what that has taken over, which is nothing yet.
// Else it takes what it took before, for which it asks the scope's program in the hub.
func (t *Tap) leaveMoved(s *seat) error {
	cpus, err := cilium.PossibleCPU()
	if err != nil {
		return err
	}
	place := t.ownPlace()
	if err := s.Moved.Put(place, make([]uint64, cpus)); err != nil {
		return err
	}
	program, err := cilium.NewProgram(&cilium.ProgramSpec{
		Name: "leaving", Type: cilium.SocketFilter, License: "Apache-2.0",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.StoreImm(asm.RFP, -4, int64(place), asm.Word),
			asm.LoadMapPtr(asm.R1, s.Moved.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "leave"),
			asm.LoadMem(asm.R0, asm.R0, 0, asm.DWord),
			asm.JNE.Imm(asm.R0, 0, "leave"),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.LoadMapPtr(asm.R2, s.Scopes.FD()),
			asm.Mov.Imm(asm.R3, int32(s.id)),
			asm.FnTailCall.Call(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("leave"),
			asm.Return(),
		},
	})
	if err != nil {
		return explainBPF(err)
	}
	defer program.Close() // the socket keeps it
	return unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program.FD())
}

// openSeat is the moment. Before and after it programs may be running that know only of what
// was before.
func (t *Tap) openSeat(s *seat) error {
	awaitPrograms()
	if err := s.Wants.Put(s.id, s.wants|(t.ownPlace()+1)<<wantsMoves); err != nil {
		return err
	}
	awaitPrograms()
	// Nothing is for the own socket any more. It goes to frames that there are none of,
	// and keeps what it has asked of the interface. If it cannot, it rejects what it is asked
	// about, and costs what it did.
	const reserved = 0xffff // EtherType; IANA, IEEE 802 Numbers
	unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: reserved, Ifindex: t.link.index})
	rejectAll(t.fd)
	return s.Wants.Put(s.id, s.wants)
}

// ownPlace is the number of the own socket among those at the interface.
func (t *Tap) ownPlace() uint32 { return uint32(t.own.place - firstOwn) }

// enterSeat begins to read what the hub gives, if all is read that the own socket had taken.
func (t *Tap) enterSeat() (entered bool) {
	if t.shared != nil || t.seat.Load() == nil || t.ring.taken < t.arrivedInRing() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counting.Lock()
	defer t.counting.Unlock()
	t.ring.close()
	t.endWatch()
	t.shared = t.seat.Load()
	t.pollSeat()
	go t.leaveFirst(t.own)
	t.own = nil
	return true
}

// leaveFirst gives up what the own socket had. The kernel, and others who change the
// roster, are waited for.
func (t *Tap) leaveFirst(r *roster) {
	t.mu.Lock()
	if t.fd >= 0 {
		unix.SetsockoptTpacketReq3(t.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{})
	}
	t.mu.Unlock()
	r.close()
}

// A movedFilter is one in the hub, and what another has counted before.
type movedFilter struct {
	*sharedFilter
	before Stats // with nil where that did not count
}

// count counts no frames where only some of them have been.
func (f *movedFilter) count(s *Stats) error {
	var since Stats
	if f.before.Seen == nil {
		return nil
	}
	if err := f.sharedFilter.count(&since); err != nil {
		return err
	}
	add := func(a, b *uint64) *uint64 { n := *a + *b; return &n }
	s.Seen, s.InScope, s.Matched = add(f.before.Seen, since.Seen), add(f.before.InScope, since.InScope), add(f.before.Matched, since.Matched)
	return nil
}
