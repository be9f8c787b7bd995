package loader

import (
	"errors"

	"jailtap/bpf"
)

// A Warden makes captive sockets, and keeps the guards that hold for them
// whoever has them.
//
// Two things a packet socket can do are no matter of its filter: it has
// options, some of which take other sockets' packets or switch checks off, and
// it can send. So a Warden's process lives in a cgroup of its own, where a
// cgroup/setsockopt program refuses what is not on a short list to all packet
// sockets that are made there (a socket stays in the cgroup of its creator),
// and a tcx program on every interface of the namespace drops what captive
// sockets send. Both are pinned, so that they outlive the process; the next
// Warden takes them up again.
//
// What is not guarded: an interface that appears, until the kernel's word of it
// has come and the guard on sending is there. A holder that floods such an
// interface gets frames out in that time. And: a holder that makes 32-bit system calls on a 64-bit
// kernel, for which Linux does not run cgroup/setsockopt programs
// (do_sock_setsockopt in net/socket.c). Captive sockets are for processes that
// cannot make them, as under a seccomp filter.
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

// Captive makes a captive socket. If a guard cannot be had there is none.
func (w *Warden) Captive(cfg CaptiveConfig) (*Captive, error) { return w.captive(cfg) }

// Sweep removes what is kept for captive sockets that are no more, and the
// guards with the last of them. A socket may be found only some 100 ms after it
// was closed.
func (w *Warden) Sweep() error { return w.sweep() }

// Close moves the process back to where it was, and sweeps. Captive sockets
// that others hold stay captive.
func (w *Warden) Close() error { return w.close() }

// CaptiveConfig says what a captive socket is for.
type CaptiveConfig struct {
	Namespace Namespace // whose interfaces; nil is the caller's
	Datagram  bool      // SOCK_DGRAM, without link-level headers; else SOCK_RAW
	Scope     bpf.Scope
}

// A Captive is a packet socket that shows its jail's packets and nothing else,
// and that does nothing else, whoever holds it and whatever they try. It is not
// bound to an interface; its holder may bind it to any, and to another later.
type Captive struct{ captive }

// FD is the socket's file descriptor, to be handed on. It is valid until Close.
func (c *Captive) FD() int { return c.socket }

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
