package nsjail

import (
	"cmp"
	"net/netip"
	"slices"
)

// A SocketQuery says which sockets are wanted.
type SocketQuery struct {
	// Namespace is the network namespace whose sockets are wanted; nil is the
	// caller's.
	Namespace *Jail

	// Process, if not nil, wants the sockets of those processes only for which
	// it is true; sockets that no process is known of are left out then.
	Process func(pid int) bool

	IPv4, IPv6, Unix bool

	// Protocols are of IPv4 and IPv6: tcp, udp, raw. None stand for all.
	Protocols []string
}

// A Socket is one that a process holds, or, if several do, one of these
// holdings.
type Socket struct {
	UID     int    // of the process; -1 if no process is known
	Command string // of the process, printable; empty if none is known
	PID     int    // of the process; 0 if none is known
	FD      int    // the process's number for it; -1 if none is known

	Protocol string // tcp, udp, raw; stream, dgram, seqpac
	IPv4     bool   // it has an IPv4 address
	IPv6     bool   // it has an IPv6 address; both if it listens for both

	// Local and Remote are addresses with ports in the computer's order. One
	// that is not bound or connected has the port 0. Raw sockets have the
	// number of their protocol for a local port.
	Local, Remote netip.AddrPort

	// Path is what a Unix socket is bound to, printable, with an @ in front if
	// it is not a file (unix(7)); PeerPath that of the other side. Paired is
	// whether there is another side.
	Path, PeerPath string
	Paired         bool
}

// Connected reports whether a socket has another side.
func (s Socket) Connected() bool { return s.Paired || s.Remote.Port() != 0 }

// Sockets asks the kernel for sockets (sock_diag(7)), sorted by process. The
// processes of other users need CAP_SYS_PTRACE to be known.
func Sockets(q SocketQuery) ([]Socket, error) { return sockets(q) }

// sortSockets sorts by process; those without one come last.
func sortSockets(list []Socket) {
	slices.SortFunc(list, func(a, b Socket) int {
		return cmp.Or(
			-cmp.Compare(number(a.PID != 0), number(b.PID != 0)),
			cmp.Compare(a.PID, b.PID),
			cmp.Compare(a.FD, b.FD),
			cmp.Compare(a.Protocol, b.Protocol),
			a.Local.Compare(b.Local),
			a.Remote.Compare(b.Remote),
			cmp.Compare(a.Path, b.Path),
		)
	})
}
