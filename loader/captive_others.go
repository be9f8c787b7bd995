//go:build !linux

package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"jailtap/bpf"
)

var errNoCaptive = fmt.Errorf("captive sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)

type warden struct{}

func openWarden(WardenConfig) (*Warden, error) { return nil, errNoCaptive }

func (w *warden) guard(Namespace) (gap, err error) { return nil, errNoCaptive }

func (w *warden) spare(CaptiveConfig) (*Spare, error) { return nil, errNoCaptive }

type spare struct{}

func (s *spare) captive(string, []netip.Prefix) (*Captive, error) { return nil, errNoCaptive }

func (s *spare) close() error { return errNoCaptive }

func (w *warden) adopt(string) ([]*Captive, error) { return nil, errNoCaptive }

func (w *warden) captive(CaptiveConfig) (*Captive, error) { return nil, errNoCaptive }

func (w *warden) sweep() error { return errNoCaptive }

func (w *warden) close() error { return errNoCaptive }

type captive struct {
	socket int
	label  string
	link   struct {
		typ   bpf.LinkType
		index int
	}
}

func (c *captive) alive() bool { return false }

func (c *captive) setFilter(bpf.Program) error { return errNoCaptive }

func (c *captive) clearFilter() error { return errNoCaptive }

func (c *captive) setScope(bpf.Scope) error { return errNoCaptive }

func (c *captive) revoke() error { return errRevoked }

func (c *captive) stats() (CaptiveStats, error) { return CaptiveStats{}, errNoCaptive }

func (c *captive) close() error { return errNoCaptive }
