package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A hub is what all captures at an interface share, in whichever processes they are:
// the program of hub.bpf.c and its maps, pinned, and a file whose locks say which
// captures live. Their sockets are one group (PACKET_FANOUT of packet(7)), to which
// the kernel shows each packet once, whoever of them comes and goes.
//
// docs/HUB.md has the reasons, and what must not be done in another order.
type hub struct {
	hubObjects
	pins string   // directory
	file *os.File // its byte i is locked while capture i lives; hubMutex to change anything

	id      uint32 // of the capture that this is for
	claimed bool
}

const (
	hubMembers = 4096 // MEMBERS of hub.bpf.c
	hubShares  = 8    // SHARERS
	hubMutex   = hubMembers

	hubPins  = "/sys/fs/bpf/jailtap-hub"
	hubFiles = "/run/jailtap"

	// hubVersion changes when programs and maps of different builds do not go together.
	hubVersion = 1
)

// What a capture wants, of hub.bpf.c.
const (
	wantsReceivedOnly = 1 << iota
	wantsGroupIPv4
	wantsGroupFull
)

// errHubFull is about a hub that has no room for a capture.
var errHubFull = errors.New("the hub is full")

// openHub opens the hub of an interface, with its mutex locked.
func openHub(namespace uint64, ifindex int) (*hub, error) {
	name := fmt.Sprintf("hub%d-%d-%d", hubVersion, namespace, ifindex)
	h := &hub{pins: filepath.Join(hubPins, name)}
	if err := makePins(hubPins); err != nil {
		return nil, err
	}
	if err := h.lockFile(filepath.Join(hubFiles, name)); err != nil {
		return nil, fmt.Errorf("lock the hub: %w", err)
	}
	if err := h.takeUp(); err != nil {
		h.close()
		return nil, fmt.Errorf("the hub's maps: %w", err)
	}
	return h, nil
}

// lockFile opens the file and locks its mutex. One that the last capture has removed
// meanwhile is no hub's any more.
func (h *hub) lockFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		h.file = file
		if err := h.lock(); err != nil {
			return errors.Join(err, file.Close())
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err == nil && st.Nlink > 0 {
			return nil
		}
		file.Close()
	}
}

// Locks are those of open files (F_OFD_SETLK of fcntl(2)): the kernel takes them away
// when their holder is no more, however it ended.
func (h *hub) lock() error   { return h.setLock(unix.F_OFD_SETLKW, unix.F_WRLCK, hubMutex) }
func (h *hub) unlock() error { return h.setLock(unix.F_OFD_SETLK, unix.F_UNLCK, hubMutex) }

func (h *hub) setLock(how int, kind int16, at int64) error {
	for {
		err := unix.FcntlFlock(h.file.Fd(), how, &unix.Flock_t{Type: kind, Start: at, Len: 1})
		if err != unix.EINTR {
			return err
		}
	}
}

// alive reports whether somebody else holds one of n locks.
func (h *hub) alive(from, n int64) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: from, Len: n}
	err := unix.FcntlFlock(h.file.Fd(), unix.F_OFD_GETLK, &l)
	return err != nil || l.Type != unix.F_UNLCK
}

// takeUp takes up what is pinned, or makes it. What is left of captures that all have
// ended is made anew.
func (h *hub) takeUp() error {
	if !h.alive(0, hubMembers) {
		if err := h.unpin(); err != nil {
			return err
		}
	}
	spec, err := loadHub()
	if err != nil {
		return err
	}
	if err := os.Mkdir(h.pins, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, m := range spec.Maps {
		m.Pinning = cilium.PinByName
	}
	with := cilium.CollectionOptions{Maps: cilium.MapOptions{PinPath: h.pins}}
	program := filepath.Join(h.pins, hubProgHub)
	if h.Hub, err = cilium.LoadPinnedProgram(program, nil); err == nil {
		return spec.LoadAndAssign(&h.hubMaps, &with)
	}
	if err := spec.LoadAndAssign(&h.hubObjects, &with); err != nil {
		return explainBPF(err)
	}
	return h.Hub.Pin(program)
}

func (h *hub) unpin() error {
	entries, err := os.ReadDir(h.pins)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(h.pins, e.Name())))
	}
	return errors.Join(err, os.Remove(h.pins))
}

// claim takes a number for a capture, and takes away what those that were killed have
// left behind.
func (h *hub) claim() error {
	about, err := h.about()
	if err != nil {
		return err
	}
	free := -1
	for id := range int(about.Limit) {
		if h.alive(int64(id), 1) {
			continue
		}
		if err := h.clear(uint32(id)); err != nil {
			return err
		}
		if free < 0 {
			free = id
		}
	}
	if free < 0 {
		free = int(about.Limit)
	}
	if free == hubMembers {
		return fmt.Errorf("%w: %d captures", errHubFull, hubMembers)
	}
	h.id = uint32(free)
	if err := h.setLock(unix.F_OFD_SETLK, unix.F_WRLCK, int64(h.id)); err != nil {
		return err
	}
	h.claimed = true
	about.Limit = max(about.Limit, h.id+1)
	return errors.Join(h.Counts.Put(h.id, hubCount{}), h.Hubs.Put(uint32(0), about))
}

func (h *hub) about() (about hubAbout, err error) {
	err = h.Hubs.Lookup(uint32(0), &about)
	return about, err
}

// clear takes away all of a capture that is no more.
func (h *hub) clear(id uint32) error {
	var ring uint32 // the map's number
	if err := h.Rings.Lookup(id, &ring); errors.Is(err, cilium.ErrKeyNotExist) {
		return nil
	}
	return errors.Join(h.forgetAll(h.Owners4, id), h.forgetAll(h.Owners6, id), h.vacate(id))
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

// vacate ends what a capture gets. The order does not matter: without either nothing
// comes.
func (h *hub) vacate(id uint32) error {
	errs := []error{h.Wants.Put(id, uint32(0))}
	for _, m := range []*cilium.Map{h.Scopes, h.Rings} {
		if err := m.Delete(id); !errors.Is(err, cilium.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
		if err := h.own(p.Addr()); err != nil {
			return fmt.Errorf("share address %v: %w", p.Addr(), err)
		}
	}
	return nil
}

func (h *hub) own(a netip.Addr) error {
	var sharers hubSharers
	owners, key := h.owners(a), a.AsSlice()
	if err := owners.Lookup(key, &sharers); err != nil && !errors.Is(err, cilium.ErrKeyNotExist) {
		return err
	}
	if slices.Contains(sharers.Id[:], uint16(h.id)+1) {
		return nil
	}
	free := slices.Index(sharers.Id[:], 0)
	if free < 0 {
		return fmt.Errorf("%w: %d captures have it already", errHubFull, hubShares)
	}
	sharers.Id[free] = uint16(h.id) + 1
	return owners.Put(key, sharers)
}

func (h *hub) remove(addrs []netip.Prefix) error {
	for _, p := range addrs {
		if err := forget(h.owners(p.Addr()), p.Addr().AsSlice(), h.id); err != nil {
			return fmt.Errorf("give up address %v: %w", p.Addr(), err)
		}
	}
	return nil
}

// forget takes a capture off an address.
func forget(owners *cilium.Map, key []byte, id uint32) error {
	var old, left hubSharers
	if err := owners.Lookup(key, &old); err != nil {
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
		return owners.Delete(key)
	}
	return owners.Put(key, left)
}

// enter makes a socket, that is bound, one of the group.
func (h *hub) enter(fd int) error {
	about, err := h.about()
	if err != nil {
		return err
	}
	if h.alive(0, hubMembers) && about.Group != 0 {
		return joinGroup(fd, uint16(about.Group), 0)
	}
	if err := joinGroup(fd, 0, unix.PACKET_FANOUT_FLAG_UNIQUEID); err != nil {
		return err
	}
	group, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return err
	}
	about.Group = uint32(uint16(group))
	return h.Hubs.Put(uint32(0), about)
}

// joinGroup makes a socket one of a group in which the kernel shows each packet to the
// first: that is what PACKET_FANOUT_CBPF does as long as there is no program to choose.
func joinGroup(fd int, group uint16, flags int) error {
	kind := unix.PACKET_FANOUT_CBPF | flags
	var args []byte // struct fanout_args of linux/if_packet.h, with the most members (Linux 5.9)
	args = binary.NativeEndian.AppendUint32(args, uint32(kind)<<16|uint32(group))
	args = binary.NativeEndian.AppendUint32(args, hubMembers)
	if err := unix.SetsockoptString(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, string(args)); err != nil {
		return fmt.Errorf("join the group of sockets %d (PACKET_FANOUT): %w", group, err)
	}
	return nil
}

// leave takes the capture out of the hub, and the hub away with the last of them. Its
// socket is closed while nobody enters, whose own is not ready yet to take its place.
func (h *hub) leave(fd int, addrs []netip.Prefix) error {
	if err := h.lock(); err != nil {
		return errors.Join(err, unix.Close(fd), h.close())
	}
	err := unix.Close(fd)
	if h.claimed {
		err = errors.Join(err, h.Wants.Put(h.id, uint32(0)), h.remove(addrs), h.vacate(h.id))
	}
	if !h.alive(0, hubMembers) {
		err = errors.Join(err, h.unpin(), os.Remove(h.file.Name()))
	}
	return errors.Join(err, h.close())
}

// close gives up the number, as being killed would.
func (h *hub) close() error { return errors.Join(h.hubObjects.Close(), h.file.Close()) }
