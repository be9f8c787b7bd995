//go:build amd64 || arm64

package oci

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A place is a network namespace, held open.
type place struct {
	*os.File
	id placeID
}

// placeID tells namespaces apart (namespaces(7)) while they are open.
type placeID struct{ dev, ino uint64 }

// openPlace opens the namespace that a thread is in.
func openPlace(tid int) (*place, error) {
	f, err := os.Open(pathOf(tid))
	if err != nil {
		return nil, fmt.Errorf("network namespace of thread %d: %w", tid, err)
	}
	p := &place{File: f}
	if p.id, err = idOf(f); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func idOf(f *os.File) (placeID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return placeID{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return placeID{uint64(st.Dev), st.Ino}, nil
}

// ours checks that the namespace is administered by our own user namespace. A
// process may make itself another one (unshare(1), -rn) and be its administrator:
// there it needs no captive sockets, and could keep us busy with interfaces.
func (p *place) ours() error {
	fd, err := unix.IoctlRetInt(int(p.Fd()), unix.NS_GET_USERNS) // EPERM: it is none of ours or below
	if err != nil {
		return fmt.Errorf("who administers the network namespace: %w", err)
	}
	owner := os.NewFile(uintptr(fd), "user namespace")
	defer owner.Close()
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return err
	}
	defer own.Close()
	a, errA := idOf(owner)
	b, errB := idOf(own)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if a != b {
		return errors.New("its network namespace belongs to a user namespace other than the daemon's")
	}
	return nil
}

// holds checks that a thread is in the namespace.
func (p *place) holds(tid int) error {
	there, err := openPlace(tid)
	if err != nil {
		return err
	}
	defer there.Close()
	if there.id != p.id {
		return fmt.Errorf("thread %d is in another network namespace than its container was at first", tid)
	}
	return nil
}

// path leads to the namespace while it is open.
func (p *place) path() string { return fmt.Sprintf("/proc/self/fd/%d", p.Fd()) }

func pathOf(tid int) string { return fmt.Sprintf("/proc/%d/ns/net", tid) }
