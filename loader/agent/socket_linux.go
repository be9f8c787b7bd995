//go:build amd64 || arm64

package agent

import (
	"errors"

	"golang.org/x/sys/unix"
)

// A request is what the arguments of socket(2) say.
type request struct {
	datagram bool
	protocol uint16 // in network byte order, as packet_create takes it
	nonblock bool
	cloexec  bool
}

// parseRequest refuses with the errors of __sys_socket (net/socket.c) and of
// packet_create (net/packet/af_packet.c). SOCK_PACKET has a receive path of its
// own, where frames begin elsewhere and the sender's address is a name, and
// nothing has used it for decades: it is not offered.
func parseRequest(typ, protocol uint32) (r request, errno unix.Errno) {
	const typeMask = 0xf // SOCK_TYPE_MASK of linux/net.h
	flags := typ &^ typeMask
	if flags&^(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) != 0 {
		return r, unix.EINVAL
	}
	r = request{protocol: uint16(protocol), nonblock: flags&unix.SOCK_NONBLOCK != 0, cloexec: flags&unix.SOCK_CLOEXEC != 0}
	switch typ & typeMask {
	case unix.SOCK_RAW:
	case unix.SOCK_DGRAM:
		r.datagram = true
	case unix.SOCK_PACKET:
		return r, unix.EPROTONOSUPPORT
	default:
		return r, unix.ESOCKTNOSUPPORT
	}
	return r, 0
}

func (s *server) socket(n *notification) {
	if n.arg(0) != unix.AF_PACKET {
		s.pass(n)
		return
	}
	r, errno := parseRequest(n.arg(1), n.arg(2))
	if errno == 0 {
		errno = s.newCaptive(n, r)
	}
	if errno != 0 {
		s.answer(n, errno)
	}
}

// newCaptive gives the caller a captive socket, which ends the call.
func (s *server) newCaptive(n *notification, r request) unix.Errno {
	if err := s.admitted(n); err != nil {
		s.log.Warn("no captive socket", "tid", n.tid, "error", err)
		return unix.EPERM
	}
	done, err := s.cells.reserve()
	if err != nil {
		s.log.Warn("no captive socket", "tid", n.tid, "error", err)
		return unix.ENOBUFS
	}
	defer done()
	c, err := s.captives.New(r.datagram)
	if err != nil {
		s.log.Error("no captive socket", "tid", n.tid, "error", err)
		return unix.EPERM
	}
	if err := s.handOver(n, r, c); err != nil {
		c.Close()
		return errnoOf(err)
	}
	return 0
}

// admitted asks whether the caller may have one.
func (s *server) admitted(n *notification) error {
	if s.admit == nil {
		return nil
	}
	waits := func() bool { return s.valid(n) }
	err := s.admit(int(n.tid), waits)
	if err == nil && !waits() {
		return unix.ESRCH
	}
	return err
}

func (s *server) handOver(n *notification, r request, c Captive) error {
	if r.nonblock {
		if err := unix.SetNonblock(c.FD(), true); err != nil {
			return err
		}
	}
	// A socket made with a protocol gets packets of all interfaces from the
	// start. This one does from here on, since its scope is in force.
	if r.protocol != 0 {
		if err := unix.Bind(c.FD(), &unix.SockaddrLinklayer{Protocol: r.protocol}); err != nil {
			return err
		}
	}
	// It is known before the caller has it: its next call is about it.
	s.cells.put(c)
	if err := s.give(n, c.FD(), r.cloexec); err != nil {
		s.cells.drop(c)
		return err
	}
	// The caller's descriptors, and what they are passed on to, are all that
	// keeps the socket now.
	if err := c.Release(); err != nil {
		s.log.Error("captive socket not released", "error", err)
	}
	return nil
}

// errnoOf is what to tell the caller of an error of ours.
func errnoOf(err error) unix.Errno {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return unix.ENOMEM
}
