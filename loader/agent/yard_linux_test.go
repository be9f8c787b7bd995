//go:build amd64 || arm64

package agent

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader"
)

// A yard makes sockets as captive ones are, as far as the agent is concerned:
// with a filter of their own that is locked. What the agent does is written down.
type yard struct {
	mu     sync.Mutex
	made   []*inmate
	closed int
	refuse error
}

type inmate struct {
	yard     *yard
	fd       int
	cookie   uint64
	datagram bool
	filters  []bpf.Program // nil: cleared
}

func (y *yard) New(datagram bool) (Captive, error) {
	if y.refuse != nil {
		return nil, y.refuse
	}
	typ := unix.SOCK_RAW
	if datagram {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_PACKET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	reject := unix.SockFilter{Code: 6}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	err = errors.Join(err,
		unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &reject}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
	if err != nil {
		return nil, err
	}
	in := &inmate{yard: y, fd: fd, cookie: cookie, datagram: datagram}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.made = append(y.made, in)
	return in, nil
}

func (y *yard) Existing() (map[uint64]bool, error) { return loader.PacketSockets(nil) }

func (in *inmate) FD() int { return in.fd }

func (in *inmate) Cookie() uint64 { return in.cookie }

func (in *inmate) SetFilter(p bpf.Program) error {
	in.yard.mu.Lock()
	defer in.yard.mu.Unlock()
	if p[len(p)-1].K == untranslatable {
		return errors.ErrUnsupported
	}
	in.filters = append(in.filters, p)
	return nil
}

// untranslatable is what a program returns that has no translation.
const untranslatable = 0xbad

func (in *inmate) ClearFilter() error {
	in.yard.mu.Lock()
	defer in.yard.mu.Unlock()
	in.filters = append(in.filters, nil)
	return nil
}

func (in *inmate) Release() error {
	in.yard.mu.Lock()
	defer in.yard.mu.Unlock()
	if in.fd < 0 {
		return nil
	}
	err := unix.Close(in.fd)
	in.fd = -1
	return err
}

func (in *inmate) Close() error {
	in.yard.mu.Lock()
	defer in.yard.mu.Unlock()
	in.yard.closed++
	if in.fd < 0 {
		return nil
	}
	err := unix.Close(in.fd)
	in.fd = -1
	return err
}

// allClosed checks that nothing of what was made is left.
func (y *yard) allClosed(t *testing.T) {
	t.Helper()
	if y.closed != len(y.made) {
		t.Errorf("%d captives made, %d closed", len(y.made), y.closed)
	}
}
