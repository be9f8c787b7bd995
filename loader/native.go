package loader

import "jailtap/bpf"

// A Native has FreeBSD's kernel run programs on Ethernet frames: on a tap(4)
// interface of its own, which bpf(4) captures from. Opening one needs root. It
// is for one goroutine.
type Native struct{ native }

// OpenNative makes the interface. On other systems the error wraps
// errors.ErrUnsupported.
func OpenNative() (*Native, error) {
	n := &Native{}
	if err := n.open(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// Run sends a frame through a program (BIOCSETF), and returns how many of its
// bytes the kernel kept: the verdict, but no more than there are. A program
// that the kernel refuses is an error that wraps its errno; a frame that no
// Ethernet interface takes, one that wraps errors.ErrUnsupported.
func (n *Native) Run(p bpf.Program, frame []byte) (kept int, err error) { return n.run(p, frame) }

// Close takes the interface away.
func (n *Native) Close() error { return n.close() }
