//go:build amd64 || arm64

package oci

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

func listen(path string) (*net.UnixListener, error) {
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("the place for the socket %s: %w", path, err)
	}
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, unix.EADDRINUSE) && abandoned(addr) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = net.ListenUnix("unix", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("the socket for container runtimes: %w", err)
	}
	// Others could connect until here, but not get further (allowed).
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// abandoned reports whether it is a socket that nobody listens to any more.
func abandoned(addr *net.UnixAddr) bool {
	conn, err := net.DialUnix("unix", nil, addr)
	if err == nil {
		conn.Close()
	}
	st, statErr := os.Lstat(addr.Name)
	return errors.Is(err, unix.ECONNREFUSED) && statErr == nil && st.Mode().Type() == os.ModeSocket
}

// allowed checks that a peer is root's or our own user's, by the kernel's word
// (SO_PEERCRED, unix(7)).
func allowed(conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		peer, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if optErr != nil {
		return fmt.Errorf("who connects: %w", optErr)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d is user %d's, and runtimes are root's", peer.Pid, peer.Uid)
	}
	return nil
}
