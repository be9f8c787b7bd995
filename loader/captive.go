package loader

import (
	"errors"
	"net/netip"

	"jailtap/bpf"
)

// A Warden makes captive sockets, and keeps the guards that hold for them
// whoever has them.
//
// Two things a packet socket can do are no matter of its filter: it has
// options, some of which take other sockets' packets or switch checks off, and
// it can send. Against the first, a Warden's process lives in a cgroup of its
// own, where a cgroup/setsockopt program refuses what is not on a short list to
// captive sockets, which are made there (a socket stays in the cgroup of its
// creator). Against the second there are two guards in each namespace that
// captive sockets are of: a tcx program on every interface, and a netfilter
// chain on all, which also drops what goes past tcx (PACKET_QDISC_BYPASS). Both
// know captive sockets by a mark, which a holder without privileges cannot
// change. All are pinned, or last by themselves, so that they outlive the
// process; the next Warden takes them up again.
//
// Before Linux 6.18 there is no such chain, and Guard tells what a holder can
// do then.
type Warden struct{ warden }

// WardenConfig says where the guards live. The zero value is the usual places.
type WardenConfig struct {
	Pins   string // directory on a bpffs; "" is /sys/fs/bpf/jailtap
	Cgroup string // directory on a cgroup2 file system; "" is jailtap at its root
}

// OpenWarden moves the process into the Warden's cgroup and puts the guard on
// options there. It needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and the
// right to write to the cgroup.
func OpenWarden(cfg WardenConfig) (*Warden, error) { return openWarden(cfg) }

// Guard puts the guards on sending in a namespace, as Captive does where they
// are not there. A gap is what this kernel leaves open, with the reason.
func (w *Warden) Guard(ns Namespace) (gap, err error) { return w.guard(ns) }

// Captive makes a captive socket. If a guard cannot be had there is none.
func (w *Warden) Captive(cfg CaptiveConfig) (*Captive, error) { return w.captive(cfg) }

// Prepare makes most of a captive socket ahead of the time when it is wanted: what
// Interface and Scope.Addrs of cfg are, is said by Spare.Captive, which is quicker if
// Scope.Addrs are the same. Datagram must be as the frames of the interface begin.
// Namespace may be closed then.
//
// Of the time that Captive takes, most is for the ring, which waits for a grace
// period of the kernel's.
func (w *Warden) Prepare(cfg CaptiveConfig) (*Spare, error) { return w.spare(cfg) }

// Adopt takes up the captive sockets that others hold and whose labels begin so,
// of a Warden that is no more. They have no FD. What SetScope is told must have
// the policy and the VLANs that they were made with.
func (w *Warden) Adopt(label string) ([]*Captive, error) { return w.adopt(label) }

// Sweep removes what is kept for captive sockets that are no more, and the
// guards with the last of them. A socket may be found only some 100 ms after it
// was closed.
func (w *Warden) Sweep() error { return w.sweep() }

// Close moves the process back to where it was, and sweeps. Captive sockets
// that others hold stay captive.
func (w *Warden) Close() error { return w.close() }

// A Spare is a captive socket that is nobody's yet. Nothing comes in.
type Spare struct{ spare }

// Captive makes it one for an interface, a name or Any, and addresses. The Spare is
// used up, also by an error; one that wraps errors.ErrUnsupported says that a new
// captive socket would do, or tell why it does not.
func (s *Spare) Captive(iface string, addrs []netip.Prefix) (*Captive, error) {
	return s.captive(iface, addrs)
}

// Close gives it up.
func (s *Spare) Close() error { return s.close() }

// CaptiveConfig says what a captive socket is for.
type CaptiveConfig struct {
	Namespace Namespace // whose interfaces; nil is the caller's
	Scope     bpf.Scope

	// Interface is what the socket is bound to, for good: a name or Any. Its
	// frames then begin as those of a Tap there. If it is "" the holder binds the
	// socket, to whatever it likes and as often, and Datagram says how frames
	// begin: with the network header (SOCK_DGRAM), else the link-level one.
	Interface string
	Datagram  bool

	// RingBytes makes a ring (TPACKET_V3) of that size, for who holds the socket
	// to map. 0: none; the holder may make one, of up to 32 MiB.
	RingBytes int
	Immediate bool // frames can be read after 1 ms, not 50 ms

	// Label is for Adopt, up to 63 bytes. "" is for sockets whose filter need
	// not outlive this process.
	Label string
}

// A Captive is a packet socket that shows its jail's packets and nothing else,
// and that does nothing else, whoever holds it and whatever they try.
type Captive struct{ captive }

// FD is the socket's file descriptor, to be handed on. It is valid until Close;
// -1: it was adopted.
func (c *Captive) FD() int { return c.socket }

// Label is that of its CaptiveConfig.
func (c *Captive) Label() string { return c.label }

// LinkType is how its frames begin, where it is bound: as those of a Tap.
func (c *Captive) LinkType() bpf.LinkType { return c.link.typ }

// Index is the number of the interface that it is bound to; 0: all, or none yet.
func (c *Captive) Index() int { return c.link.index }

// Alive reports whether somebody holds the socket, as far as that is known: one
// that was closed lives on for some 100 ms.
func (c *Captive) Alive() bool { return c.alive() }

// SetFilter exchanges the user's filter: a program about frames as this socket
// shows them, as libpcap attaches it. An error wraps errors.ErrUnsupported if
// the program can be no eBPF; the filter before stays.
func (c *Captive) SetFilter(p bpf.Program) error { return c.setFilter(p) }

// ClearFilter makes the user's filter "everything in scope".
func (c *Captive) ClearFilter() error { return c.clearFilter() }

// SetScope exchanges the addresses. If it fails nothing is in scope until it
// succeeds. Policy and VLANs stay.
func (c *Captive) SetScope(s bpf.Scope) error { return c.setScope(s) }

// Revoke empties the scope for good, multicast and broadcast too.
func (c *Captive) Revoke() error { return c.revoke() }

// Stats are those since the socket was made.
func (c *Captive) Stats() (CaptiveStats, error) { return c.stats() }

// Close gives up FD and the maps behind it. Where others still hold the socket
// its scope stays as it is, and its filter becomes "everything in scope".
func (c *Captive) Close() error { return c.close() }

// CaptiveStats counts frames that came to the socket, that were in scope, and
// of those that the user's filter took.
type CaptiveStats struct{ Seen, InScope, Matched uint64 }

var errRevoked = errors.New("the captive socket's scope was revoked")
