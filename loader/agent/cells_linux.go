//go:build amd64 || arm64

package agent

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A cell is a captive socket that somebody was given.
type cell struct {
	Captive
	mu     sync.Mutex
	locked bool // the holder has said SO_LOCK_FILTER

	missed int // how many looks in a row did not find it; guarded by cells.mu
}

// change changes the user's filter, unless the holder has locked it.
func (c *cell) change(do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked {
		return unix.EPERM
	}
	return do()
}

// lock is SO_LOCK_FILTER, which does not go back.
func (c *cell) lock(on bool) unix.Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked && !on {
		return unix.EPERM
	}
	c.locked = on
	return 0
}

// cells are the captive sockets that are held, by cookie: the kernel's number
// of a socket, which is never given again (sock_gen_cookie).
type cells struct {
	most     int
	existing func() (map[uint64]bool, error)

	mu     sync.Mutex
	held   map[uint64]*cell
	making int       // not yet held, or not yet released
	made   sync.Cond // one less is being made
	look   int       // how many are held when it is time to look which have gone
}

func newCells(most int, existing func() (map[uint64]bool, error)) *cells {
	cs := &cells{most: most, existing: existing, held: map[uint64]*cell{}}
	cs.made.L = &cs.mu
	return cs
}

// reserve makes room for one more. done is to be called when it is in and
// released, or will not come.
func (cs *cells) reserve() (done func(), err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	// A socket that its holder has closed exists until it is released here too.
	for cs.making > 0 && len(cs.held)+cs.making >= cs.most {
		cs.made.Wait()
	}
	if len(cs.held) >= min(cs.look, cs.most) {
		if err := cs.bury(); err != nil {
			return nil, err
		}
	}
	if len(cs.held)+cs.making >= cs.most {
		return nil, fmt.Errorf("there are %d captive sockets, and no more are allowed at once", cs.most)
	}
	cs.making++
	return func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		cs.making--
		cs.made.Broadcast()
	}, nil
}

// bury closes those that have ended. The next look is when there are twice as
// many as are left, so that looking costs little for each.
func (cs *cells) bury() error {
	for range 2 { // one look may miss some
		existing, err := cs.existing()
		if err != nil {
			return err
		}
		for cookie, c := range cs.held {
			if existing[cookie] {
				c.missed = 0
			} else if c.missed++; c.missed == 2 {
				c.Close()
				delete(cs.held, cookie)
			}
		}
	}
	cs.look = max(8, 2*len(cs.held))
	return nil
}

func (cs *cells) put(c Captive) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.held[c.Cookie()] = &cell{Captive: c}
}

func (cs *cells) drop(c Captive) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.held, c.Cookie())
}

// get finds the captive that a socket is; nil: it is none.
func (cs *cells) get(f foreignFile) *cell {
	cookie, err := unix.GetsockoptUint64(f.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return nil
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.held[cookie]
}

func (cs *cells) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range cs.held {
		c.Close()
	}
	clear(cs.held)
}

// A foreignFile is a file that is open here too, for as long as the call lasts.
type foreignFile struct{ fd int }

func (f foreignFile) close() { unix.Close(f.fd) }

// callersFile opens the caller's descriptor here, if it is a socket: which one
// it is, is the kernel's word then, whatever the caller's threads do to the
// number meanwhile.
func (s *server) callersFile(n *notification, fd uint32) (foreignFile, error) {
	// Files of other kinds stay closed here: to close one again may wait for
	// whoever serves it (FUSE).
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.tid, int32(fd)))
	if err != nil || !strings.HasPrefix(name, "socket:[") {
		return foreignFile{-1}, unix.ENOTSOCK
	}
	pidfd, err := openThread(int(n.tid))
	if err != nil {
		return foreignFile{-1}, err
	}
	defer unix.Close(pidfd)
	if !s.valid(n) { // the number may be another thread's by now
		return foreignFile{-1}, unix.ESRCH
	}
	got, err := unix.PidfdGetfd(pidfd, int(fd), 0)
	if err != nil {
		return foreignFile{-1}, err
	}
	return foreignFile{got}, nil
}

// openThread opens a thread, whose descriptors may be other than its process's
// (unshare(2), CLONE_FILES).
func openThread(tid int) (int, error) {
	const pidfdThread = unix.O_EXCL // PIDFD_THREAD of linux/pidfd.h, Linux 6.9
	fd, err := unix.PidfdOpen(tid, pidfdThread)
	if err != unix.EINVAL {
		return fd, err
	}
	// Before that, the process will do. Should its descriptor be another socket
	// than the thread's, then the kernel refuses what is passed to it, or the
	// filter of another captive socket of the same command is changed.
	tgid, err := processOf(tid)
	if err != nil {
		return -1, err
	}
	return unix.PidfdOpen(tgid, 0)
}

// processOf reads a thread's Tgid (proc_pid_status(5)).
func processOf(tid int) (tgid int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "Tgid:\t%d", &tgid); n == 1 {
			return tgid, nil
		}
	}
	return 0, unix.ESRCH
}
