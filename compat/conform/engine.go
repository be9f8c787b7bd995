// Package conform asks systems the questions of conformance vectors (package
// vectors), holds the answers against what is known to be right, writes them
// down, and compares what two systems answered.
//
// A system is an Engine. The one here is the reference VM; package kernel has
// those that need an operating system.
package conform

import (
	"errors"
	"fmt"

	"jailtap/bpf"
)

// An Engine runs filter programs on packets. Ask may be called from several
// goroutines at once.
type Engine interface {
	Name() string // as on the command line
	Mode() Mode

	// Ask has a filter judge packets, each by itself, and returns as many
	// answers. The error wraps ErrRefused if the system does not take the
	// program, or is a *CannotError if the engine cannot ask this.
	Ask(f Filter, pkts []bpf.Packet) ([]Answer, error)

	// Metadata is what a packet has besides its bytes when the engine runs a
	// program on it; known is false if that cannot be told.
	Metadata(pkt bpf.Packet) (m bpf.Metadata, known bool)

	Close() error
}

// A Mode is which of the known interpreters an engine is to agree with.
type Mode uint8

const (
	Linux   Mode = iota
	Flat         // FreeBSD, a packet in a flat buffer: its write filters, and libpcap
	Receive      // FreeBSD, a packet that a bpf(4) device receives
)

func (m Mode) String() string { return [...]string{"linux", "freebsd (flat)", "freebsd (receive)"}[m] }

// Dialect is the rules for programs.
func (m Mode) Dialect() bpf.Dialect {
	if m == Linux {
		return bpf.Linux
	}
	return bpf.FreeBSD
}

// VM is the reference.
func (m Mode) VM() bpf.VM { return bpf.VM{Dialect: m.Dialect(), Receive: m == Receive} }

// A Filter is a program, alone or behind a scope.
type Filter struct {
	LinkType bpf.LinkType // of the packets; the zero LinkType means nothing without a scope
	Scope    *bpf.Scope   // nil: none
	Program  bpf.Program  // about packets as files hold them; behind a scope, empty keeps everything
}

// Compile makes the classic program that is to be attached. One without a scope
// is not checked: whether to take it is the system's to say.
func (f Filter) Compile(d bpf.Dialect) (bpf.Program, error) {
	if f.Scope == nil {
		return f.Program, nil
	}
	p, err := bpf.Compile(*f.Scope, bpf.View{LinkType: f.LinkType}, d, f.Program)
	return p, Explain(err)
}

// Explain makes an error of bpf.Compile one that Ask returns.
func Explain(err error) error {
	var long *bpf.TooLongError
	var many *bpf.TooManyAddressesError
	var invalid *bpf.ProgramError
	switch {
	case errors.As(err, &long), errors.As(err, &many):
		return &CannotError{"scope and program together are too long for one classic program"}
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// ErrRefused is wrapped where a system does not take a program.
var ErrRefused = errors.New("the program is refused")

// A CannotError says why an engine cannot answer a question.
type CannotError struct{ Reason string }

func (e *CannotError) Error() string { return e.Reason }

// An Answer is what a system did with a packet.
type Answer struct {
	Accepted bool
	Kept     uint32 // the verdict; unless Exact, no more than the packet has bytes
	Exact    bool
	Cannot   string // why there is no answer; "" if there is one
}

// Verdict is the answer of an engine that tells the verdict itself.
func Verdict(v uint32) Answer { return Answer{Accepted: v != 0, Kept: v, Exact: true} }

// Arrived is the answer of an engine that tells how much of a packet arrived.
func Arrived(accepted bool, size int) Answer { return Answer{Accepted: accepted, Kept: uint32(size)} }

// is reports whether the answer about a packet of so many bytes is a verdict.
func (a Answer) is(verdict uint32, size int) bool {
	kept := verdict
	if !a.Exact {
		kept = min(kept, uint32(size))
	}
	return a.Accepted == (verdict != 0) && a.Kept == kept
}

func (a Answer) String() string {
	switch {
	case a.Cannot != "":
		return "no answer (" + a.Cannot + ")"
	case !a.Accepted:
		return "rejected"
	case a.Exact:
		return fmt.Sprint(a.Kept)
	}
	return fmt.Sprintf("%d bytes kept", a.Kept)
}

// A VM is the reference interpreter as an engine.
type VM struct{ As Mode }

// Name implements Engine.
func (VM) Name() string { return "vm" }

// Mode implements Engine.
func (e VM) Mode() Mode { return e.As }

// Metadata implements Engine: there is none.
func (VM) Metadata(bpf.Packet) (bpf.Metadata, bool) { return bpf.Metadata{}, true }

// Close implements Engine.
func (VM) Close() error { return nil }

// Ask implements Engine.
func (e VM) Ask(f Filter, pkts []bpf.Packet) ([]Answer, error) {
	p, err := f.Compile(e.As.Dialect())
	if err != nil {
		return nil, err
	}
	if err := p.Validate(e.As.Dialect()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	answers := make([]Answer, len(pkts))
	for i, pkt := range pkts {
		answers[i] = Verdict(e.As.VM().Run(p, pkt))
	}
	return answers, nil
}
