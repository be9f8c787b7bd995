package broker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Peer is the process that made a connection, as the kernel tells it.
type Peer struct {
	PID      int
	UID, GID uint32 // when it connected
	Cgroup   string // its cgroup of version 2, as a path below the mount; "": it is in none

	// Namespace is a path of its network namespace, which leads there as long as
	// Resolve has not returned. NamespaceID tells namespaces apart.
	Namespace   string
	NamespaceID NamespaceID

	file *os.File
}

// A NamespaceID is the device and inode number of a namespace (namespaces(7)).
type NamespaceID struct{ Dev, Ino uint64 }

// peerOf finds who is at the other end, and fails if that process has ended: a
// number may be another process's then. Close is the caller's.
func peerOf(conn *net.UnixConn) (*Peer, error) {
	var cred *unix.Ucred
	pidfd := -1
	err := control(conn, func(fd int) (err error) {
		if cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return err
		}
		pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if errors.Is(err, unix.ENOPROTOOPT) {
			// With the number alone (SO_PEERCRED) nobody can tell whether it has
			// become another's while the connection waited to be taken.
			return errors.New("the kernel does not say for certain who connects (SO_PEERPIDFD, Linux 6.5)")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("who connects: %w", err)
	}
	defer unix.Close(pidfd)
	p := &Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
	if err := p.look(pidfd); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// look reads about the process under its number, and then makes sure that the
// number was its own all the time.
func (p *Peer) look(pidfd int) (err error) {
	if p.PID == 0 {
		return errors.New("the process that connects is in a PID namespace that is not seen from here")
	}
	if p.file, err = openFile(fmt.Sprintf("/proc/%d/ns/net", p.PID)); err != nil {
		return fmt.Errorf("network namespace of process %d: %w", p.PID, err)
	}
	p.Namespace = fmt.Sprintf("/proc/self/fd/%d", p.file.Fd())
	if p.NamespaceID, err = idOf(p.file); err != nil {
		return err
	}
	if p.Cgroup, err = cgroupOf(p.PID); err != nil {
		return err
	}
	// It was not waited for yet, so that nobody else has its number.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("process %d, which connected, has ended", p.PID)
	}
	return p.ours()
}

// cgroupOf reads the line of version 2, "0::/PATH" (cgroups(7)).
func cgroupOf(pid int) (string, error) {
	file, err := openFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n"), nil
		}
	}
	return "", nil
}

func idOf(f *os.File) (NamespaceID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return NamespaceID{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return NamespaceID{uint64(st.Dev), st.Ino}, nil
}

// ours checks that the network namespace is administered by our own user
// namespace. A process may make itself another one (unshare(1), -rn), and be its
// administrator: it needs no captive sockets there, and could keep us busy.
func (p *Peer) ours() error {
	fd, err := unix.IoctlRetInt(int(p.file.Fd()), unix.NS_GET_USERNS)
	if err != nil { // EPERM: neither ours nor below
		return fmt.Errorf("who administers the network namespace of process %d: %w", p.PID, err)
	}
	owner := os.NewFile(uintptr(fd), "user namespace")
	defer owner.Close()
	a, errA := idOf(owner)
	b, errB := ownUserNamespace()
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if a != b {
		return fmt.Errorf("the network namespace of process %d belongs to another user namespace, whose root needs no broker there", p.PID)
	}
	return nil
}

// ownUserNamespace is that of this process, which does not change its.
var ownUserNamespace = sync.OnceValues(func() (NamespaceID, error) {
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return NamespaceID{}, err
	}
	defer own.Close()
	return idOf(own)
})

// Close lets go of the namespace.
func (p *Peer) Close() {
	if p.file != nil {
		p.file.Close()
	}
}

// openFile is os.Open for what nobody waits for, without the calls to find that out.
func openFile(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// control does something with the descriptor of a connection.
func control(conn *net.UnixConn, do func(fd int) error) (err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if err2 := raw.Control(func(fd uintptr) { err = do(int(fd)) }); err2 != nil {
		return err2
	}
	return err
}
