package loader

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A roster says which captures there are at an interface, in whichever processes: a file
// of which each locks a place while it lives. Those with sockets of their own have the
// first few places; the others share the interface's hub, and say in their places where
// its descriptors are.
//
// Locks are those of open files (F_OFD_SETLK of fcntl(2)): the kernel takes them away
// when their holder is no more, however it ended.
type roster struct {
	file  *os.File
	place int64 // -1: none

	mu   sync.Mutex
	turn *turn // that is waited for; nil: none
}

const (
	rosters = "/run/jailtap"

	// hubVersion changes when the places, programs and maps of different builds do not
	// go together.
	hubVersion = 5

	// ownSockets is how many captures at an interface have sockets of their own before
	// others share a hub, which costs these more. Then they move into it.
	ownSockets = 2

	hubMembers = 4096 // MEMBERS of hub.bpf.c

	entryLen    = int64(unsafe.Sizeof(hubEntry{}))
	firstOwn    = hubMembers * entryLen
	rosterMutex = firstOwn + ownSockets
)

// A hubEntry is a member's place: where the hub's descriptors are.
type hubEntry struct {
	PIDs   uint64 // the PID namespace, its inode's number
	PID    uint32
	Socket uint32
	Cookie uint64 // of the socket (SO_COOKIE of socket(7)), by which it is known
	Maps   [numHubMaps]uint32
}

// errBusy is about a roster that somebody does not let go of.
var errBusy = errors.New("another capture has held the roster for too long: is its process stopped?")

// openRoster opens the roster of an interface, with its mutex locked. fd is some socket of
// the interface's namespace.
func openRoster(fd int, l link) (*roster, error) {
	path, err := rosterPath(fd, l)
	if err != nil {
		return nil, err
	}
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			if err = os.MkdirAll(rosters, 0o755); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		r := &roster{file: file, place: -1}
		if err := r.lock(); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if st.Nlink > 0 {
			return r, nil
		}
		file.Close() // the last capture has removed it meanwhile
	}
}

// rosterPath is where the roster of an interface is. fd is some socket of its namespace.
func rosterPath(fd int, l link) (string, error) {
	namespace, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("cookie of a network namespace (Linux 5.14): %w", err)
	}
	return rosters + "/hub" + strconv.Itoa(hubVersion) + "-" + strconv.FormatUint(namespace, 10) + "-" + strconv.Itoa(l.index), nil
}

// crowded reports whether there is a hub at an interface, or as many captures with sockets
// of their own as may have them. It may be otherwise a moment later.
func crowded(fd int, l link) bool {
	path, err := rosterPath(fd, l)
	if err != nil {
		return false
	}
	at, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil { // mostly there is none, since nobody captures
		return false
	}
	r := &roster{file: os.NewFile(uintptr(at), path), place: -1}
	defer r.file.Close()
	for place := firstOwn; place < firstOwn+ownSockets; place++ {
		if !r.held(place, 1) {
			return r.hasHub()
		}
	}
	return true
}

// rosterPatience is how long a capture waits while nobody else comes to an interface.
var rosterPatience = 20 * time.Second

// lock locks the mutex, which whoever changes the roster or the hub must hold. Those who
// wait take turns, as long as that takes: a thousand captures may come at once.
func (r *roster) lock() error {
	t, err := r.takeTurn()
	if t == nil {
		return err
	}
	for seen := r.written(); ; {
		select {
		case err := <-t.come:
			return err
		case <-time.After(rosterPatience):
		}
		if now := r.written(); now != seen {
			seen = now
			continue
		}
		return r.giveUp(t)
	}
}

// written is when somebody has come last.
func (r *roster) written() time.Time {
	info, err := r.file.Stat()
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// A turn at the mutex is waited for in the kernel, which knows no limit to that: so it may
// outlast who wants it.
type turn struct {
	come     chan error
	unwanted bool
}

// takeTurn locks the mutex, or returns the turn at which it will be locked.
func (r *roster) takeTurn() (*turn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turn != nil { // unwanted so far
		r.turn.unwanted = false
		return r.turn, nil
	}
	err := r.setLock(unix.F_WRLCK, rosterMutex)
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
		return nil, err
	}
	r.turn = &turn{come: make(chan error, 1)}
	go r.await(r.turn)
	return r.turn, nil
}

func (r *roster) await(t *turn) {
	err := r.control(unix.F_OFD_SETLKW, unix.F_WRLCK, rosterMutex)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn = nil
	if !t.unwanted {
		t.come <- err
	} else if err == nil {
		r.unlock() // if the file was closed meanwhile, its locks have ended with it
	}
}

// giveUp leaves a turn, unless it has come just now.
func (r *roster) giveUp(t *turn) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case err := <-t.come:
		return err
	default:
		t.unwanted = true
		return errBusy
	}
}

func (r *roster) unlock() error { return r.setLock(unix.F_UNLCK, rosterMutex) }

// locked runs do with the mutex.
func (r *roster) locked(do func() error) error {
	if err := r.lock(); err != nil {
		return err
	}
	defer r.unlock()
	return do()
}

func (r *roster) setLock(kind int16, at int64) error { return r.control(unix.F_OFD_SETLK, kind, at) }

// control does something about one lock (fcntl(2)).
func (r *roster) control(op int, kind int16, at int64) error {
	for {
		err := unix.FcntlFlock(r.file.Fd(), op, &unix.Flock_t{Type: kind, Start: at, Len: 1})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// held reports whether somebody else holds one of n locks.
func (r *roster) held(from, n int64) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: from, Len: n}
	err := unix.FcntlFlock(r.file.Fd(), unix.F_OFD_GETLK, &l)
	return err != nil || l.Type != unix.F_UNLCK
}

// takeOwn takes one of the first places, if one is free.
func (r *roster) takeOwn() bool {
	for place := firstOwn; place < firstOwn+ownSockets; place++ {
		if r.setLock(unix.F_WRLCK, place) == nil {
			r.place = place
			return true
		}
	}
	return false
}

// hasHub reports whether there are captures that share a hub.
func (r *roster) hasHub() bool { return r.held(0, firstOwn) }

// alive reports whether member id of the hub is another capture that lives.
func (r *roster) alive(id uint32) bool { return r.held(int64(id)*entryLen, 1) }

// members are the other captures that share the hub, the first ones first.
func (r *roster) members() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		info, err := r.file.Stat()
		for id := uint32(0); err == nil && int64(id)*entryLen < info.Size(); id++ {
			if r.alive(id) && !yield(id) {
				return
			}
		}
	}
}

// takeMember takes the place of member id.
func (r *roster) takeMember(id uint32) error {
	r.place = int64(id) * entryLen
	return r.setLock(unix.F_WRLCK, r.place)
}

// entry is what member id says.
func (r *roster) entry(id uint32) (e hubEntry, err error) {
	_, err = r.file.ReadAt(unsafe.Slice((*byte)(unsafe.Pointer(&e)), entryLen), int64(id)*entryLen)
	if errors.Is(err, io.EOF) {
		err = errors.New("it says nothing")
	}
	return e, err
}

// publish writes the place.
func (r *roster) publish(e hubEntry) error {
	_, err := r.file.WriteAt(unsafe.Slice((*byte)(unsafe.Pointer(&e)), entryLen), r.place)
	return err
}

// leave gives the place up, and removes the file with the last capture. The mutex must
// be held, which ends with it.
func (r *roster) leave() error {
	var err error
	if !r.held(0, rosterMutex) {
		err = os.Remove(r.file.Name())
	}
	return errors.Join(err, r.file.Close())
}

// close is leave for who does not hold the mutex.
func (r *roster) close() error {
	if err := r.lock(); err != nil {
		return errors.Join(err, r.file.Close())
	}
	return r.leave()
}
