package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"jailtap/bpf/ebpf"
)

const defaultPins = "/sys/fs/bpf/jailtap"

type warden struct {
	mu         sync.Mutex
	guards     *guards
	cgroup     *os.File // the Warden's
	home       string   // where the process was before
	shared     *os.File // the pins, with a lock that says they are in use
	namespaces map[uint64]*sendGuard
	removed    []*sendGuard // to be stopped
}

func openWarden(cfg WardenConfig) (_ *Warden, err error) {
	ebpf.Prepare() // meanwhile
	w := &Warden{warden{namespaces: map[uint64]*sendGuard{}}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if cfg.Pins == "" {
		cfg.Pins = defaultPins
	}
	err = exclusively(func() (err error) {
		if err = w.moveIn(cfg.Cgroup); err != nil {
			return err
		}
		if w.guards, err = openGuards(cfg.Pins, w.cgroup); err != nil {
			return err
		}
		if w.shared, err = os.Open(cfg.Pins); err != nil {
			return err
		}
		if err = unix.Flock(int(w.shared.Fd()), unix.LOCK_SH); err != nil {
			return err
		}
		return w.sweepLocked() // one that was killed has left what nobody needs
	})
	if err != nil {
		return nil, err
	}
	if err = w.resume(); err != nil {
		return nil, err
	}
	return w, nil
}

// resume takes up the guards of this namespace, if a Warden that is no more has
// left any.
func (w *warden) resume() error {
	here, err := namespaceInode(nil)
	if err != nil {
		return err
	}
	pinned, err := w.guards.pinnedNamespaces()
	if err == nil && pinned[here] {
		_, err = w.guard(nil)
	}
	return err
}

// moveIn moves the process into the Warden's cgroup, before it makes a socket.
func (w *warden) moveIn(path string) error {
	mount, home, err := ownCgroup()
	if err != nil {
		return err
	}
	if path == "" {
		path = filepath.Join(mount, "jailtap")
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make a cgroup for captive sockets: %w", err)
	}
	if w.cgroup, err = os.Open(path); err != nil {
		return err
	}
	if home != path {
		w.home = home
	}
	return enter(path)
}

func enter(cgroup string) error {
	err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0) // 0: whoever writes
	if err != nil {
		return fmt.Errorf("move into the cgroup: %w", err)
	}
	return nil
}

// ownCgroup finds where cgroup v2 is mounted (cgroups(7)), and which directory
// there is this process's.
func ownCgroup() (mount, own string, err error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(mounts)) {
		place, what, ok := strings.Cut(line, " - ") // proc_pid_mountinfo(5)
		if fields := strings.Fields(place); ok && strings.HasPrefix(what, "cgroup2 ") && len(fields) > 4 {
			mount = fields[4]
			break
		}
	}
	if mount == "" {
		return "", "", errors.New("captive sockets need cgroup v2, which is not mounted (mount -t cgroup2 none /sys/fs/cgroup)")
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(groups)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = filepath.Join(mount, strings.TrimSuffix(path, "\n"))
		}
	}
	return mount, own, nil
}

// exclusively does what no two Wardens may do at once, and no two parts of one. What
// it locks nobody else can open, and with that keep Wardens waiting.
func exclusively(do func() error) error {
	const dir = "/run/jailtap"
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "wardens.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return do()
}

func (w *warden) guard(ns Namespace) (gap, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g, err := w.guarded(ns)
	if err != nil {
		return nil, err
	}
	return g.gap, nil
}

// guarded is the guard on sending in a namespace, which is there when it
// returns, on all interfaces, and on those that come later. w.mu is the
// caller's, until the socket that it is for is listed: sweep must not come between.
func (w *warden) guarded(ns Namespace) (*sendGuard, error) {
	if w.guards == nil {
		return nil, errClosed
	}
	inode, err := namespaceInode(ns)
	if err != nil {
		return nil, err
	}
	if g := w.namespaces[inode]; g != nil {
		return g, g.failed()
	}
	g, err := w.guards.guardNamespace(ns, inode)
	if err != nil {
		return nil, err
	}
	w.namespaces[inode] = g
	return g, nil
}

// namespaceInode tells network namespaces apart (namespaces(7)).
func namespaceInode(ns Namespace) (inode uint64, err error) {
	err = within(ns, func() error {
		var st unix.Stat_t
		err := unix.Stat("/proc/thread-self/ns/net", &st)
		inode = st.Ino
		return err
	})
	return inode, err
}

func (w *warden) sweep() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.guards == nil {
		return errClosed
	}
	defer w.stopRemoved()
	return exclusively(w.sweepLocked)
}

// stopRemoved waits for watches that may wait to do something exclusively.
func (w *warden) stopRemoved() {
	for _, g := range w.removed {
		g.stop()
	}
	w.removed = nil
}

// sweepLocked forgets sockets that are no more, and if no other Warden is there
// removes the guards of namespaces without any.
func (w *warden) sweepLocked() error {
	left, err := w.guards.forget()
	if err != nil {
		return err
	}
	fd := int(w.shared.Fd())
	defer unix.Flock(fd, unix.LOCK_SH) // in any case: asking in vain for more loses what one had (flock(2))
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	if err = w.sweepHere(left); err != nil {
		return err
	}
	for inode, g := range w.namespaces {
		if left[inode] == 0 {
			err = errors.Join(err, g.remove())
			w.removed = append(w.removed, g)
			delete(w.namespaces, inode)
		}
	}
	pinned, err2 := w.guards.pinnedNamespaces()
	err = errors.Join(err, err2)
	for inode := range pinned {
		if left[inode] == 0 {
			err = errors.Join(err, w.guards.unguard(fmt.Sprintf("*-%d-*", inode)))
		}
	}
	return err
}

// sweepHere removes the chain of a Warden that was killed, where one can get at it:
// in the caller's namespace.
func (w *warden) sweepHere(left map[uint64]int) error {
	here, err := namespaceInode(nil)
	if err != nil || left[here] != 0 || w.namespaces[here] != nil {
		return err
	}
	e := &egress{table: w.guards.table()}
	defer e.close()
	if err := e.remove(); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

func (w *warden) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cgroup == nil {
		return nil
	}
	var errs []error
	if w.guards != nil {
		errs = append(errs, exclusively(w.leave))
		w.stopRemoved()
		for _, g := range w.namespaces {
			g.stop()
		}
		w.guards.close()
		w.guards = nil
	}
	errs = append(errs, exclusively(w.moveOut))
	w.cgroup.Close()
	w.cgroup = nil
	return errors.Join(errs...)
}

// moveOut takes the process back to where it was before.
func (w *warden) moveOut() (err error) {
	if w.home != "" {
		err = enter(w.home)
	}
	os.Remove(w.cgroup.Name()) // fails, and should, while somebody is in it
	return err
}

// leave sweeps, and if nothing is left that needs them removes the last pins.
func (w *warden) leave() error {
	if w.shared == nil {
		return nil
	}
	defer w.shared.Close()
	if err := w.guards.settle(); err != nil {
		return err
	}
	if err := w.sweepLocked(); err != nil {
		return err
	}
	if unix.Flock(int(w.shared.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // another Warden is there
	}
	var cookie uint64
	var socket guardCaptive
	if w.guards.Captives.Iterate().Next(&cookie, &socket) {
		return nil // a captive socket is
	}
	err := w.guards.unguard("*")
	os.Remove(w.guards.pins)
	return err
}
