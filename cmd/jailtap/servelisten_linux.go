package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// listeners are what the daemon serves.
type listeners struct {
	broker, oci *net.UnixListener // oci may be nil
}

// activated are the sockets that systemd has made: the broker's is a
// SOCK_SEQPACKET one, that for container runtimes SOCK_STREAM.
func activated() (l listeners, err error) {
	passed, err := activation.Listeners()
	if err != nil {
		return l, fmt.Errorf("sockets of systemd: %w", err)
	}
	for _, p := range passed {
		u, ok := p.(*net.UnixListener)
		switch {
		case ok && u.Addr().Network() == "unixpacket" && l.broker == nil:
			l.broker = u
		case ok && u.Addr().Network() == "unix" && l.oci == nil:
			l.oci = u
		default:
			return l, errors.New("sockets of systemd: want one ListenSequentialPacket= and at most one ListenStream=, both with a path")
		}
	}
	return l, nil
}

// listenBroker makes the broker's socket, in place of one that nobody listens to.
func listenBroker(path string, mode uint32, group string) (*net.UnixListener, error) {
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("the place for the socket: %w", err)
	}
	l, err := bindBroker(path)
	if errors.Is(err, unix.EADDRINUSE) && abandoned(path) {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = bindBroker(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the broker's socket: %w", err)
	}
	if err := share(path, mode, group); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// bindBroker makes a socket that is the daemon's own, until share.
func bindBroker(path string) (*net.UnixListener, error) {
	private := func(_, _ string, raw syscall.RawConn) (err error) {
		if err2 := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); err2 != nil {
			return err2
		}
		return err
	}
	l, err := (&net.ListenConfig{Control: private}).Listen(context.Background(), "unixpacket", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// share lets others connect.
func share(path string, mode uint32, group string) error {
	if group != "" {
		id, err := lookUpGroup(group)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, int(id)); err != nil {
			return err
		}
	}
	return os.Chmod(path, os.FileMode(mode))
}

// abandoned reports whether it is a socket that nobody listens to any more.
func abandoned(path string) bool {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err == nil {
		conn.Close()
	}
	st, statErr := os.Lstat(path)
	return errors.Is(err, unix.ECONNREFUSED) && statErr == nil && st.Mode().Type() == os.ModeSocket
}
