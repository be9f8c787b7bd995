package broker

import (
	"context"
	"io"

	"jailtap/bpf"
	"jailtap/loader"
)

// A Jail is what a client belongs to.
type Jail struct {
	Name string // same name, same jail; up to MaxName bytes

	// Namespace is where the captive socket is to be made: the client's. It is
	// closed when that is done. A Server that adopts does not ask for it.
	Namespace interface {
		loader.Namespace
		io.Closer
	}

	Scope      Scope
	Interfaces []string // those that may be captured on, "any" among them or not; none: all
	Limits     Limits
}

// MaxName is how long a jail's name may be, bytes.
const MaxName = 48

// A Scope is where a jail's scope comes from. It is closed when no more is
// wanted of it.
type Scope interface {
	// Watch calls report with the scope as it is, and again when it has changed,
	// until ctx ends, which is nil. Policy and VLANs stay. Any error shuts all
	// sockets of the jail. Calls of report do not overlap.
	Watch(ctx context.Context, report func(bpf.Scope)) error
	Describe(bpf.Scope) string // in words
	Close() error
}

// Limits are for a jail as a whole. 0 is the default.
type Limits struct {
	Captives     int     // sockets at once; 256
	RingBytes    int     // of their rings, as asked for; 256 MiB
	Instructions int     // of a filter; 4096, the kernel's own limit
	Rate         float64 // requests a second, and twice as many in a burst; 20
}

func (l Limits) withDefaults() Limits {
	if l.Captives == 0 {
		l.Captives = 256
	}
	if l.RingBytes == 0 {
		l.RingBytes = 256 << 20
	}
	if l.Instructions == 0 {
		l.Instructions = bpf.Linux.MaxInstructions()
	}
	if l.Rate == 0 {
		l.Rate = 20
	}
	return l
}
