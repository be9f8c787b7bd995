package loader

import "jailtap/bpf"

// HeldConfig says what a captive socket is that somebody else has made, and how
// to read it.
type HeldConfig struct {
	// What the one who made it says that it is bound to.
	Interface string
	Index     int // 0 for Any
	LinkType  bpf.LinkType

	// HasRing says that the socket has a ring, for which CaptiveConfig asked for
	// RingBytes, Immediate or not. Else one is made as Config asks for it, of up to 32 MiB.
	HasRing   bool
	RingBytes int
	Immediate bool

	Direction Direction
	Snaplen   int // bytes of a frame to keep, at most; 0: 262144

	// Program is what of the user's filter the kernel does not do: about frames as
	// a capture file has them; nil: nothing.
	Program bpf.Program

	// Counts are those of the socket; nil: they are not known.
	Counts func() (CaptiveStats, error)
}

// Hold makes a Tap of a captive socket, which it owns from then on, also if there is
// an error. It needs no privilege. SetScope is not the holder's business: it
// wraps errors.ErrUnsupported.
func Hold(fd int, cfg HeldConfig) (*Tap, error) { return hold(fd, cfg) }
