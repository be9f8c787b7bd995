//go:build amd64 || arm64

package jail

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A phase is what is being done with a jail.
type phase string

const (
	creating phase = "creating"
	running  phase = "running"
	removing phase = "removing"
)

// A record is what there is of a jail, or may be: it is written before things are
// made, and goes away after them.
type record struct {
	Spec  Spec    `json:"spec"`
	JID   int     `json:"jid"`
	Phase phase   `json:"phase"`
	First process `json:"first"` // the first process, once it is there

	Cgroup string    `json:"cgroup"`           // its directory
	Added  []Address `json:"added,omitempty"`  // on the host's interfaces
	Veth   string    `json:"veth,omitempty"`   // the host's side of a vnet jail's link
	Bridge string    `json:"bridge,omitempty"` // that the link is in

	MakesBridge bool `json:"makes_bridge,omitempty"` // there was none
}

func (r Registry) file(name string) string { return filepath.Join(r.Dir, name+".json") }

// prepare makes the directory of records, which is to be root's alone to change.
func (r Registry) prepare() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("jails are made, changed and removed by root: %w (run with sudo)", unix.EPERM)
	}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of jails: %w", err)
	}
	info, err := os.Lstat(r.Dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || info.Sys().(*syscall.Stat_t).Uid != 0 {
		return fmt.Errorf("%s is not a directory that root alone may change: remove it", r.Dir)
	}
	return nil
}

// load reads a record. That there is none wraps fs.ErrNotExist.
func (r Registry) load(name string) (*record, error) {
	text, err := os.ReadFile(r.file(name))
	if err != nil {
		return nil, err
	}
	rec := &record{}
	if err := json.Unmarshal(text, rec); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", r.file(name), err)
	}
	return rec, nil
}

// save writes a record whole or not at all. The caller holds the jail's lock.
func (r Registry) save(rec *record) error {
	text, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return err
	}
	temporary := r.file(rec.Spec.Name) + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return fmt.Errorf("write the record of jail %s: %w", rec.Spec.Name, err)
	}
	return os.Rename(temporary, r.file(rec.Spec.Name))
}

// forget removes a record.
func (r Registry) forget(name string) error {
	os.Remove(r.file(name) + ".new") // of a command that was killed
	os.Remove(r.AgentLog(name))
	if err := os.Remove(r.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// records are all that there are, in the order of their jids.
func (r Registry) records() ([]*record, error) {
	entries, err := os.ReadDir(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*record
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		rec, err := r.load(name)
		if errors.Is(err, fs.ErrNotExist) { // removed since
			continue
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("jails are root's to see: %w (run with sudo)", err)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, rec)
	}
	slices.SortFunc(list, func(a, b *record) int { return a.JID - b.JID })
	return list, nil
}

// A lock holds a name, or all of them. It ends with the process that has it.
type lock struct{ file *os.File }

// errBusy is that another process has a lock.
var errBusy = errors.New("another jailtap is at work on it")

// lock takes the lock of a name. It waits as long as patience says; 0 is not at
// all.
func (r Registry) lock(name string, patience time.Duration) (*lock, error) {
	path := filepath.Join(r.Dir, name+".lock")
	for end := time.Now().Add(patience); ; {
		l, err := tryLock(path)
		if !errors.Is(err, errBusy) || time.Now().After(end) {
			return l, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// tryLock makes sure that what it has locked still is the file of the name: who
// releases a lock removes the file.
func tryLock(path string) (*lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errBusy
			}
			return nil, err
		}
		ours, err := f.Stat()
		if there, err2 := os.Stat(path); err == nil && err2 == nil && os.SameFile(ours, there) {
			return &lock{f}, nil
		}
		f.Close()
	}
}

func (l *lock) release() {
	os.Remove(l.file.Name())
	l.file.Close()
}
