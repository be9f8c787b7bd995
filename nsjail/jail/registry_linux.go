//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is the directory of a jail's cgroup, and the mount that it is in.
func (r Registry) cgroup(name string) (root, dir string, err error) {
	root, err = cgroupRoot()
	return root, filepath.Join(root, r.Cgroup, name), err
}

// list finds the jails that there are.
func (r Registry) list() ([]*Jail, error) {
	records, err := r.records()
	if err != nil {
		return nil, err
	}
	var list []*Jail
	for _, rec := range records {
		if rec.First.alive() {
			list = append(list, &Jail{r, rec})
		}
	}
	return list, nil
}

// find finds a jail by its name or jid.
func (r Registry) find(nameOrJID string) (*Jail, error) {
	if goodName(nameOrJID) { // a path could be anything else
		if rec, err := r.load(nameOrJID); err == nil && rec.First.alive() {
			return &Jail{r, rec}, nil
		}
	}
	jails, err := r.list()
	if err != nil {
		return nil, err
	}
	jid, _ := strconv.Atoi(nameOrJID)
	var known []string
	for _, j := range jails {
		if j.rec.Spec.Name == nameOrJID || jid > 0 && j.rec.JID == jid {
			return j, nil
		}
		known = append(known, j.rec.Spec.Name)
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("unknown jail %q: none is running: %w", nameOrJID, ErrUnknown)
	}
	if len(known) > 20 {
		known = append(known[:20], "and more")
	}
	return nil, fmt.Errorf("unknown jail %q: there are %s: %w", nameOrJID, strings.Join(known, ", "), ErrUnknown)
}

// claim writes the first record of a jail, with a jid that no other one has. It
// looks at all records, and so has the lock of all meanwhile.
func (r Registry) claim(rec *record) error {
	all, err := r.lockAll()
	if err != nil {
		return fmt.Errorf("jail %s: %w", rec.Spec.Name, err)
	}
	defer all.Close()
	others, err := r.records()
	if err != nil {
		return err
	}
	for _, o := range others {
		if rec.JID == 0 {
			continue
		}
		if o.JID == rec.JID {
			return fmt.Errorf("jail %s: jid %d is that of jail %s: %w", rec.Spec.Name, rec.JID, o.Spec.Name, ErrExists)
		}
	}
	if rec.JID == 0 {
		rec.JID = freeJID(others)
	}
	if err := rec.claimAddresses(others); err != nil {
		return fmt.Errorf("jail %s: %w", rec.Spec.Name, err)
	}
	return r.save(rec)
}

// lockAll locks what jails have in common, until the file is closed.
func (r Registry) lockAll() (*os.File, error) {
	all, err := os.Open(r.Dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(all.Fd()), unix.LOCK_EX); err != nil {
		all.Close()
		return nil, fmt.Errorf("lock the records: %w", err)
	}
	return all, nil
}

// freeJID is one more than the highest one.
func freeJID(others []*record) int {
	if len(others) == 0 {
		return 1
	}
	return others[len(others)-1].JID + 1
}

// repair removes what commands have left that were killed, and jails that have
// ended. Who is at work on a jail holds its lock.
func (r Registry) repair() error {
	entries, err := os.ReadDir(r.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if ok {
			if rec, err := r.load(name); err == nil && rec.wellAndAlive() {
				continue
			}
		} else if name, ok = strings.CutSuffix(e.Name(), ".lock"); !ok {
			continue
		}
		errs = append(errs, r.repairOne(name))
	}
	return errors.Join(errs...)
}

// wellAndAlive reports whether a jail was finished and has not ended.
func (rec *record) wellAndAlive() bool { return rec.Phase == running && rec.First.alive() }

func (r Registry) repairOne(name string) error {
	l, err := r.lock(name, 0)
	if errors.Is(err, errBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.release()
	rec, err := r.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r.forget(name)
	}
	if err != nil {
		return err
	}
	if rec.wellAndAlive() {
		return nil
	}
	return r.clean(rec)
}

// clean removes all that there is of a jail, or was begun. It may be done again:
// what is not there is no error. The record goes last, and stays if something
// could not be removed.
func (r Registry) clean(rec *record) error {
	// Interfaces go home as long as there is a namespace to take them from, and
	// addresses when nobody has them any more.
	errs := []error{rec.returnInterfaces(), killCgroup(rec.Cgroup)}
	rec.First.awaitEnd()
	errs = append(errs, removeCgroup(rec.Cgroup), r.removeNetwork(rec))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("jail %s: %w", rec.Spec.Name, err)
	}
	return r.forget(rec.Spec.Name)
}

// awaitEnd waits for the end of a first process that was killed: after all that is in
// its process namespace (pid_namespaces(7)). If it is a child of this process, it is
// waited for; others have somebody else to do that.
func (p process) awaitEnd() {
	if p.PID == 0 {
		return
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if now, err := identify(p.PID); err != nil || now != p {
		return
	}
	const most = 10 * time.Second // who lasts longer is what removeCgroup complains of
	pollThrough(fd, most)
	unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil)
}

// pollThrough waits until a descriptor is readable, also through signals, which end a
// poll(2) each time: those of Go's scheduler come often.
func pollThrough(fd int, most time.Duration) {
	for end := time.Now().Add(most); ; {
		left := max(time.Until(end), 0)
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())); err != unix.EINTR {
			return
		}
	}
}
