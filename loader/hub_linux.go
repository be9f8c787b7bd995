package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A hub is what captures at an interface share, in whichever processes they are: one
// packet socket with the program of hub.bpf.c, and its maps. Each of them has them open,
// so that the hub lasts as long as any of them, and takes them over from one that has.
//
// docs/HUB.md has the reasons, and what must not be done in another order.
type hub struct {
	hubMaps
	*roster
	socket int // -1: none
	id     uint32
}

const (
	hubShares     = 8  // SHARERS of hub.bpf.c
	hubDigestBits = 14 // DIGEST_BITS
)

// What a capture wants, of hub.bpf.c.
const (
	wantsReceivedOnly = 1 << iota
	wantsGroupIPv4
	wantsGroupFull
	wantsNothingYet
)

const wantsMoves = 4 // MOVES of hub.bpf.c

// errHubFull is about a hub that has no room for a capture.
var errHubFull = errors.New("the hub is full")

// openHub takes a place in the hub of an interface, which make makes if there is none. fd
// is some socket of the interface's namespace.
func openHub(fd int, l link, make func(*hub) error) (*hub, error) {
	r, err := openRoster(fd, l)
	if err != nil {
		return nil, err
	}
	h := &hub{roster: r, socket: -1}
	err = h.takeOver()
	if errors.Is(err, errNoHub) {
		err = make(h)
	}
	if err == nil {
		err = h.claim()
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, h.unlock()
}

// errNoHub is about an interface with no capture that shares a hub.
var errNoHub = errors.New("there is no hub")

// takeOver takes the hub's descriptors over from a member. One whose interface went down
// has ended, as a socket of one's own would have: its members are about to notice.
func (h *hub) takeOver() error {
	result := errNoHub
	for id := range h.members() {
		e, err := h.entry(id)
		if err == nil {
			err = h.borrow(e)
		}
		switch {
		case err != nil:
			h.closeShared()
			result = fmt.Errorf("take the hub over from capture %d: %w", id, err)
		case hasError(h.socket):
			h.closeShared()
		default:
			return nil
		}
	}
	return result
}

// borrow gets descriptors out of another process (pidfd_getfd(2)). Its number could have
// become another's, which would not have the socket.
func (h *hub) borrow(e hubEntry) error {
	if here, err := pidNamespace(); err != nil || e.PIDs != here {
		return errors.Join(errors.New("it is in another PID namespace"), err)
	}
	process, err := unix.PidfdOpen(int(e.PID), 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", e.PID, err)
	}
	defer unix.Close(process)
	take := func(fd uint32) (int, error) {
		n, err := unix.PidfdGetfd(process, int(fd), 0)
		if errors.Is(err, unix.EPERM) {
			err = &PrivilegeError{Op: fmt.Sprintf("get a descriptor of process %d", e.PID), Capability: "CAP_SYS_PTRACE", Err: err}
		}
		return n, err
	}
	if h.socket, err = take(e.Socket); err != nil {
		h.socket = -1
		return err
	}
	if cookie, err := unix.GetsockoptUint64(h.socket, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil || cookie != e.Cookie {
		return errors.Join(fmt.Errorf("descriptor %d of process %d is not the hub's socket", e.Socket, e.PID), err)
	}
	for i, m := range h.maps() {
		fd, err := take(e.Maps[i])
		if err == nil {
			*m, err = cilium.NewMapFromFD(fd)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// make makes a hub: nothing comes in before its program is there, and then for nobody.
func (h *hub) make(ns Namespace, l link) error {
	var objs hubObjects
	if err := loadHubObjects(&objs, nil); err != nil {
		return explainBPF(err)
	}
	h.hubMaps = objs.hubMaps
	defer objs.Hub.Close() // the socket keeps it
	err := within(ns, func() (err error) {
		h.socket, err = packetSocket(l.typ)
		return err
	})
	if err != nil {
		h.socket = -1
		return err
	}
	if err := unix.SetsockoptInt(h.socket, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, objs.Hub.FD()); err != nil {
		return fmt.Errorf("attach the hub's program: %w", err)
	}
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: l.index}
	if err := unix.Bind(h.socket, to); err != nil {
		return err
	}
	if hasError(h.socket) {
		return ErrInterfaceDown
	}
	return nil
}

// hasError reports whether an error waits in a socket: that the interface went down is
// the one that can. It is not fetched (SO_ERROR), since others wait for it too.
func hasError(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(fds, 0)
	return err != nil && err != unix.EINTR || fds[0].Revents&unix.POLLERR != 0 // EINTR: there was nothing
}

// maps are the hub's, in the order in which entries name them.
func (m *hubMaps) maps() [numHubMaps]**cilium.Map {
	return [...]**cilium.Map{&m.Owners4, &m.Owners6, &m.Watchers, &m.Scopes, &m.Rings, &m.Wants, &m.Many, &m.Counts, &m.Hubs, &m.Seen, &m.Moved, &m.Known}
}

const numHubMaps = 12

// claim takes a number for a capture and publishes it, and takes away what those that
// were killed have left behind.
func (h *hub) claim() error {
	var about hubAbout
	if err := h.Hubs.Lookup(uint32(0), &about); err != nil {
		return err
	}
	var err error
	if h.id, err = h.clear(about.Limit); err != nil {
		return err
	}
	if h.id == hubMembers {
		return fmt.Errorf("%w: %d captures", errHubFull, hubMembers)
	}
	if err := h.takeMember(h.id); err != nil {
		return err
	}
	if err := h.publish(); err != nil {
		return err
	}
	about.Limit = max(about.Limit, h.id+1)
	return errors.Join(h.Counts.Put(h.id, hubCount{}), h.Wants.Put(h.id, uint32(wantsNothingYet)), h.Hubs.Put(uint32(0), about))
}

// publish says where others find the hub.
func (h *hub) publish() (err error) {
	e := hubEntry{PID: uint32(os.Getpid()), Socket: uint32(h.socket)}
	if e.PIDs, err = pidNamespace(); err != nil {
		return err
	}
	if e.Cookie, err = unix.GetsockoptUint64(h.socket, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return err
	}
	for i, m := range h.maps() {
		e.Maps[i] = uint32((*m).FD())
	}
	return h.roster.publish(e)
}

// pidNamespace tells PID namespaces apart (namespaces(7)).
func pidNamespace() (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/self/ns/pid", &st)
	return st.Ino, err
}

// clear takes away all of captures below a number that are no more, and returns the lowest
// number that is free. The ring is the last of it: as long as that is there, there may be more.
func (h *hub) clear(limit uint32) (free uint32, err error) {
	var removing errgroup.Group // each waits for an RCU grace period
	removing.SetLimit(64)
	var errs []error
	free = limit
	for id := range limit {
		if h.alive(id) {
			continue
		}
		free = min(free, id)
		var ring uint32 // the map's number
		if errors.Is(h.Rings.Lookup(id, &ring), cilium.ErrKeyNotExist) {
			continue
		}
		if err := errors.Join(h.silence(id), h.unlist(id)); err != nil {
			errs = append(errs, err)
			continue
		}
		removing.Go(func() error { return deleted(h.Rings, id) })
	}
	for free < hubMembers && h.alive(free) { // in a hub that is about to end
		free++
	}
	return free, errors.Join(append(errs, removing.Wait())...)
}

// forgetAll takes a capture off all addresses in a map.
func (h *hub) forgetAll(owners *cilium.Map, id uint32) error {
	var theirs [][]byte
	key, sharers := make([]byte, owners.KeySize()), hubSharers{}
	each := owners.Iterate()
	for each.Next(&key, &sharers) {
		if slices.Contains(sharers.Id[:], uint16(id)+1) {
			theirs = append(theirs, slices.Clone(key))
		}
	}
	if err := each.Err(); err != nil {
		return err
	}
	for _, key := range theirs {
		if err := forget(owners, key, id); err != nil {
			return err
		}
	}
	return nil
}

// silence ends what a capture gets. The order does not matter: without either nothing
// comes.
func (h *hub) silence(id uint32) error {
	return errors.Join(h.Wants.Put(id, uint32(0)), deleted(h.Scopes, id))
}

// unlist takes a capture out of all that says whom to show a frame.
func (h *hub) unlist(id uint32) error {
	return errors.Join(h.forgetAll(h.Owners4, id), h.forgetAll(h.Owners6, id), h.unwatch(id), h.group(id, 0))
}

// deleted takes a number out of a map; that it is not there is no error.
func deleted(m *cilium.Map, id uint32) error {
	if err := m.Delete(id); !errors.Is(err, cilium.ErrKeyNotExist) {
		return err
	}
	return nil
}

// owners is the map for an address.
func (h *hub) owners(a netip.Addr) *cilium.Map {
	if a.Is4() {
		return h.Owners4
	}
	return h.Owners6
}

// add has frames of these addresses shown to the capture's program.
func (h *hub) add(addrs []netip.Prefix) error {
	for _, p := range addrs {
		key := p.Addr().AsSlice()
		err := h.Known.Put(digest(key), uint8(1))
		if err == nil {
			err = share(h.owners(p.Addr()), key, h.id)
		}
		if err != nil {
			return fmt.Errorf("share address %v: %w", p.Addr(), err)
		}
	}
	return nil
}

// digest is an address's place in the map known, as is_known of hub.bpf.c has it.
func digest(addr []byte) uint32 {
	var folded uint32
	for word := range slices.Chunk(addr, 4) {
		folded ^= binary.NativeEndian.Uint32(word)
	}
	const golden = 0x9e3779b1
	return folded * golden >> (32 - hubDigestBits)
}

func (h *hub) remove(addrs []netip.Prefix) error {
	for _, p := range addrs {
		if err := forget(h.owners(p.Addr()), p.Addr().AsSlice(), h.id); err != nil {
			return fmt.Errorf("give up address %v: %w", p.Addr(), err)
		}
	}
	return nil
}

// watch has all frames shown to the capture's program.
func (h *hub) watch() error {
	if err := h.setWatched(1); err != nil {
		return err
	}
	if err := share(h.Watchers, uint32(0), h.id); err != nil {
		return fmt.Errorf("see all frames: %w", err)
	}
	return nil
}

// unwatch is the opposite of watch.
func (h *hub) unwatch(id uint32) error {
	if err := forget(h.Watchers, uint32(0), id); err != nil {
		return err
	}
	var left hubSharers
	if err := h.Watchers.Lookup(uint32(0), &left); errors.Is(err, cilium.ErrKeyNotExist) {
		return h.setWatched(0)
	}
	return nil
}

func (h *hub) setWatched(n uint32) error {
	var about hubAbout
	err := h.Hubs.Lookup(uint32(0), &about)
	if err != nil || about.Watched == n {
		return err
	}
	about.Watched = n
	return h.Hubs.Put(uint32(0), about)
}

// share adds a capture to those that share something.
func share(m *cilium.Map, key any, id uint32) error {
	var sharers hubSharers
	if err := m.Lookup(key, &sharers); err != nil && !errors.Is(err, cilium.ErrKeyNotExist) {
		return err
	}
	if slices.Contains(sharers.Id[:], uint16(id)+1) {
		return nil
	}
	free := slices.Index(sharers.Id[:], 0)
	if free < 0 {
		return fmt.Errorf("%w: %d captures do already", errHubFull, hubShares)
	}
	sharers.Id[free] = uint16(id) + 1
	err := m.Put(key, sharers)
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("%w: %d addresses", errHubFull, m.MaxEntries())
	}
	return err
}

// forget takes a capture out of those that share something.
func forget(m *cilium.Map, key any, id uint32) error {
	var old, left hubSharers
	if err := m.Lookup(key, &old); err != nil {
		if errors.Is(err, cilium.ErrKeyNotExist) {
			return nil
		}
		return err
	}
	n := 0
	for _, sharer := range old.Id {
		if sharer != 0 && sharer != uint16(id)+1 {
			left.Id[n] = sharer
			n++
		}
	}
	if n == 0 {
		return m.Delete(key)
	}
	return m.Put(key, left)
}

// group says of which kinds of frames to many a capture is asked whether it wants them.
func (h *hub) group(id, wants uint32) error {
	const words = hubMembers / 64
	for kind := range uint32(4) { // of the map many
		want := wants&wantsGroupIPv4 != 0
		if kind&1 != 0 {
			want = wants&wantsGroupFull != 0
		}
		if kind&2 != 0 && wants&wantsReceivedOnly != 0 {
			want = false
		}
		at, bit := kind*words+id/64, uint64(1)<<(id%64)
		var old uint64
		if err := h.Many.Lookup(at, &old); err != nil {
			return err
		}
		now := old &^ bit
		if want {
			now |= bit
		}
		if now != old {
			if err := h.Many.Put(at, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave takes the capture out of the hub. To remove the ring waits for a grace period,
// for which others need not wait.
func (h *hub) leave(addrs []netip.Prefix) error {
	err := h.silence(h.id)
	if err == nil {
		err = h.locked(func() error { return errors.Join(h.remove(addrs), h.unwatch(h.id), h.group(h.id, 0)) })
	}
	if err == nil { // else there is something to be cleared
		err = deleted(h.Rings, h.id)
	}
	if busy := h.lock(); busy != nil {
		return errors.Join(err, busy, h.file.Close(), h.closeShared())
	}
	return errors.Join(err, h.close())
}

// close gives the number up, as being killed would. The roster's mutex must be held.
func (h *hub) close() error { return errors.Join(h.closeShared(), h.roster.leave()) }

func (h *hub) closeShared() (err error) {
	if h.socket >= 0 {
		err = unix.Close(h.socket)
	}
	h.socket = -1
	for _, m := range h.maps() {
		err = errors.Join(err, (*m).Close()) // nil: nothing
		*m = nil
	}
	return err
}
