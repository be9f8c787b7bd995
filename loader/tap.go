// Package loader opens captures: it puts a program that enforces a scope on a
// packet socket before anything can reach the socket, and reads what passes.
//
// The order of things is fixed (see open in tap_linux.go), so that there is no
// moment in which a frame outside the scope can arrive. When anything about
// the scope cannot be set up there is no capture.
package loader

import (
	"context"
	"sync"

	"jailtap/bpf"
	"jailtap/internal/captured"
)

// An Engine is a way to have the kernel enforce the scope.
type Engine string

const (
	Auto Engine = "auto" // also "": what costs least for this scope and works on this kernel
	CBPF Engine = "cbpf" // a classic program with the scope in its instructions
	EBPF Engine = "ebpf" // an eBPF program with the scope in maps
)

// A Hub says whether a capture shares the program that looks at each packet with others
// at its interface, in whichever processes, so that a packet costs the same whatever the
// number of those that it does not concern. docs/HUB.md has what it costs.
type Hub string

const (
	// HubAuto, also "", shares it from the third capture at an interface on, if nothing
	// was asked for that keeps it from sharing: an engine, or networks or VLANs in the
	// scope. The first two move into it when they are being read. Where one cannot, for
	// lack of CAP_BPF for instance, it has a socket of its own.
	HubAuto Hub = "auto"
	// HubAlways shares it from the first capture on. Where that cannot be, the capture has
	// a socket of its own, and Tap.Reason says why.
	HubAlways Hub = "always"
	HubNever  Hub = "never" // has a socket of its own
)

// A Direction says which frames are captured, as seen from the interface.
type Direction string

const (
	InOut Direction = "inout" // also "": both; on loopback, where each frame is seen twice, once
	In    Direction = "in"    // received
	Out   Direction = "out"   // sent
)

// Any is the name of the interface that stands for all of them. Its frames are
// LinuxSLL2.
const Any = "any"

// A Namespace runs a function in a network namespace. *nsjail.Jail is one.
type Namespace interface{ Do(func() error) error }

// Config says what to capture. A capture needs CAP_NET_RAW in the user
// namespace that the network namespace belongs to.
type Config struct {
	Interface string    // by name, or Any
	Namespace Namespace // where the interface is; nil: the caller's

	Scope   bpf.Scope // what may be seen
	NoScope bool      // everything may be: Scope means nothing then

	// ScopeChanges says that SetScope will be called. Auto then takes the
	// engine that changes at the least cost. On FreeBSD the filter is locked
	// (BIOCLOCK) without it, and SetScope ends the capture.
	ScopeChanges bool

	// Filter makes the user's program, which is about frames as a capture file
	// holds them; nil: none. It is called once, outside Namespace, when the link
	// type is known. An empty program keeps everything.
	Filter func(bpf.LinkType) (bpf.Program, error)

	// Hub says whether the capture may share the interface's hub; "" is HubAuto. If it
	// does its engine is EBPF. On FreeBSD it means nothing.
	Hub Hub

	Engine    Engine
	Direction Direction

	Snaplen     int  // bytes of a frame to keep, at most; 0: 262144, as tcpdump does
	RingBytes   int  // for frames that wait to be read; 0: 2 MiB, 4 MiB if Immediate
	Immediate   bool // frames can be read after 1 ms, not 50 ms; costs more CPU and ring
	Promiscuous bool // also frames to other MACs; means nothing for Any
}

// A Tap is an open capture. Its methods may be called from several goroutines at
// once; of Reads, one runs at a time.
type Tap struct {
	link link
	conn // the system's part

	naming sync.Mutex // guards the rest, which changes if the capture moves into a hub
	engine Engine
	reason string
}

// A link is an interface as it was when the capture was opened.
type link struct {
	name  string
	index int // 0 for Any
	typ   bpf.LinkType

	loopback bool
}

// A Packet is one frame. The next one overwrites its Data.
type Packet = captured.Packet

// Packets are frames that have arrived together; PacketList is a slice of some.
type (
	Packets    = captured.Packets
	PacketList = captured.List
)

// Stats are counts since the capture was opened.
type Stats struct {
	Received uint64 // frames that passed the filter in the kernel, with those dropped
	Dropped  uint64 // of those, frames that found no room in the ring

	// What the filter did; nil where the engine does not count it.
	Seen    *uint64 // frames that the filter was asked about
	InScope *uint64 // of those, frames in scope
	Matched *uint64 // of those, frames that the user's program took
}

// Open opens a capture. It returns an *InterfaceError for an unknown interface
// and a *PrivilegeError where a capability is missing. If cfg.Engine is not
// Auto and cannot do it, that is an error: another is not tried.
func Open(cfg Config) (*Tap, error) { return open(cfg) }

// LinkType is what frames start with.
func (t *Tap) LinkType() bpf.LinkType { return t.link.typ }

// Interface is the interface's name when the capture was opened, or Any.
func (t *Tap) Interface() string { return t.link.name }

// Ifindex is the interface's number in its namespace; 0 for Any.
func (t *Tap) Ifindex() int { return t.link.index }

// Engine is what enforces the scope, never Auto. It becomes EBPF when a capture moves into
// the interface's hub.
func (t *Tap) Engine() Engine {
	t.naming.Lock()
	defer t.naming.Unlock()
	return t.engine
}

// Reason says why it is that engine.
func (t *Tap) Reason() string {
	t.naming.Lock()
	defer t.naming.Unlock()
	return t.reason
}

// is says what enforces the scope, and why.
func (t *Tap) is(e Engine, reason string) {
	t.naming.Lock()
	defer t.naming.Unlock()
	t.engine, t.reason = e, reason
}

// Read calls handle with every packet. It returns
//   - nil when ctx ends, after all packets that had arrived by then;
//   - an error that wraps ErrInterfaceGone or ErrInterfaceDown, after the last packet;
//   - handle's error at once. The next Read goes on with the next packet;
//   - an error that wraps os.ErrClosed after Close.
//
// A Packet is valid until handle returns. handle must not call Close.
func (t *Tap) Read(ctx context.Context, handle func(*Packet) error) error {
	return t.read(ctx, handle)
}

// ReadBatches is Read for many packets: handle is called with those that have
// arrived together, which cost less each, and with nil when there are no more for
// now, which is the time to write out what was gathered. Packets are valid until
// handle returns, and those that it has not taken are done with.
func (t *Tap) ReadBatches(ctx context.Context, handle func(Packets) error) error {
	return t.readBatches(ctx, handle)
}

// SetScope replaces the scope without losing a frame that is in both the old
// and the new one, but see below. From its return on, frames outside s no
// longer arrive. Frames that were in scope when they arrived, and wait to be
// read, stay: they were the jail's own then.
//
// If s cannot be set, the capture accepts nothing more until it can.
//
// With CBPF, if net.core.optmem_max has no room for two programs, frames that
// arrive during the exchange are lost.
func (t *Tap) SetScope(s bpf.Scope) error { return t.setScope(s) }

// Stats returns the counts so far; after Close, those at Close.
func (t *Tap) Stats() (Stats, error) { return t.stats() }

// Close ends the capture and Reads that are under way.
func (t *Tap) Close() error { return t.close() }
