//go:build amd64 || arm64

package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	// maxState is how long a state may be, in bytes. Its annotations make it as
	// long as it is.
	maxState = 1 << 20

	// maxFDs is how many descriptors may come with it. The specification knows one.
	maxFDs = 16
)

// A message is what a runtime sends, one on each connection.
type message struct {
	state    specs.ContainerProcessState
	listener *os.File
}

// receive reads a message. It comes when it comes: crun connects when a container
// is created, and sends when it is started. Descriptors in it that nobody asked for
// are closed.
func receive(conn *net.UnixConn) (*message, error) {
	text, fds, err := readAll(conn)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return nil, err
	}
	m := &message{}
	if err := json.Unmarshal(text, &m.state); err != nil {
		return nil, fmt.Errorf("not a container process state: %w", err)
	}
	n, err := check(&m.state, len(fds))
	if err != nil {
		return nil, err
	}
	if !isListener(fds[n]) {
		return nil, fmt.Errorf("%s is something else than a seccomp listener", specs.SeccompFdName)
	}
	m.listener = os.NewFile(uintptr(fds[n]), "seccomp listener")
	fds = slices.Delete(fds, n, n+1)
	return m, nil
}

// readAll reads up to the end of a JSON object, or of the connection: runtimes
// send an object and close, but not all of them at once.
func readAll(conn *net.UnixConn) (text []byte, fds []int, err error) {
	data, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, controlLen, flags, _, err := conn.ReadMsgUnix(data, control)
		more, rightsErr := rights(control[:controlLen])
		first := len(text) == 0
		text, fds = append(text, data[:n]...), append(fds, more...)
		switch {
		case rightsErr != nil:
			return nil, fds, rightsErr
		case flags&unix.MSG_CTRUNC != 0:
			return nil, fds, fmt.Errorf("more than %d descriptors came", maxFDs)
		case len(more) > 0 && !first:
			return nil, fds, errors.New("descriptors came with a later part of the message")
		case len(text) > maxState:
			return nil, fds, fmt.Errorf("the message has more than %d bytes", maxState)
		case errors.Is(err, io.EOF):
			return text, fds, nil
		case err != nil:
			return nil, fds, err
		case bytes.HasSuffix(bytes.TrimSpace(data[:n]), []byte("}")) && json.Valid(text):
			return text, fds, nil
		}
	}
}

// rights are the descriptors that control messages bring (SCM_RIGHTS, unix(7)).
func rights(control []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, parseErr := unix.ParseUnixRights(&m)
		fds, err = append(fds, some...), errors.Join(err, parseErr)
	}
	return fds, err
}

// check checks a state that came with some descriptors, and returns the number
// of the one that is the listener.
func check(s *specs.ContainerProcessState, fds int) (listener int, err error) {
	listener = slices.Index(s.Fds, specs.SeccompFdName)
	switch {
	case !known(s.Version):
		return 0, fmt.Errorf("ociVersion %q is not known; 1.x is", s.Version)
	case listener < 0:
		return 0, fmt.Errorf("there is no %s among its fds %q", specs.SeccompFdName, s.Fds)
	case len(s.Fds) != fds:
		return 0, fmt.Errorf("it names %d fds, but %d came", len(s.Fds), fds)
	case s.State.ID == "":
		return 0, errors.New("the container has no id")
	}
	return listener, nil
}

// known reports whether a version of the specification is one with this message.
// What 2.x will have nobody knows; crun says 0.2.0 (as of 1.8.1) and means 1.x.
func known(version string) bool {
	return strings.HasPrefix(version, "1.") || strings.HasPrefix(version, "0.")
}

// isListener asks for the name that the kernel gives to such files
// (init_listener in kernel/seccomp.c).
func isListener(fd int) bool {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && name == "anon_inode:seccomp notify"
}
