package kernel

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/compat/conform"
)

// cbpf attaches classic programs to a datagram socket pair, which takes
// packets of any length and needs no privilege. Delivery is synchronous, so
// that reading without waiting tells the verdict.
type cbpf struct {
	name  string
	pairs chan *socketPair
}

const socketPairs = 8

func openCBPF(name string) func() (conform.Engine, error) {
	return func() (conform.Engine, error) {
		e := &cbpf{name, make(chan *socketPair, socketPairs)}
		for range socketPairs {
			pair, err := newSocketPair()
			if err != nil {
				return nil, errors.Join(err, e.Close())
			}
			e.pairs <- pair
		}
		return e, nil
	}
}

func (e *cbpf) Name() string       { return e.name }
func (e *cbpf) Mode() conform.Mode { return conform.Linux }

// Metadata is none: the packet comes from no interface.
func (e *cbpf) Metadata(bpf.Packet) (bpf.Metadata, bool) { return bpf.Metadata{}, true }

func (e *cbpf) Close() error {
	for {
		select {
		case pair := <-e.pairs:
			pair.close()
		default:
			return nil
		}
	}
}

func (e *cbpf) Ask(f conform.Filter, pkts []bpf.Packet) ([]conform.Answer, error) {
	p, err := f.Compile(bpf.Linux)
	if err != nil {
		return nil, err
	}
	pair := <-e.pairs
	defer func() { e.pairs <- pair }()
	if err := pair.attach(p); err != nil {
		return nil, err
	}
	answers := make([]conform.Answer, len(pkts))
	for i, pkt := range pkts {
		if answers[i].Cannot = conform.Cut(f.Program, pkt); answers[i].Cannot != "" {
			continue
		}
		if answers[i], err = pair.pass(pkt.Data); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

type socketPair struct {
	from, to int
	buf      []byte
}

func newSocketPair() (*socketPair, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return &socketPair{fds[0], fds[1], make([]byte, 1<<18)}, nil
}

func (s *socketPair) close() {
	unix.Close(s.from)
	unix.Close(s.to)
}

// attach replaces the filter.
func (s *socketPair) attach(p bpf.Program) error {
	throttle()
	filter := make([]unix.SockFilter, len(p), len(p)+1)
	for i, in := range p {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(p)), Filter: unsafe.SliceData(filter)}
	err := unix.SetsockoptSockFprog(s.to, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog)
	switch {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %w", conform.ErrRefused, err)
	case err != nil:
		return fmt.Errorf("attach a program of %d instructions: %w", len(p), err)
	}
	return nil
}

// pass sends a packet and says how much of it arrived.
func (s *socketPair) pass(pkt []byte) (conform.Answer, error) {
	if err := unix.Sendto(s.from, pkt, 0, nil); err != nil {
		return conform.Answer{}, fmt.Errorf("send a packet of %d bytes: %w", len(pkt), err)
	}
	size, _, err := unix.Recvfrom(s.to, s.buf, 0)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return conform.Arrived(false, 0), nil
	case err != nil:
		return conform.Answer{}, fmt.Errorf("receive a packet: %w", err)
	}
	return conform.Arrived(true, size), nil
}
