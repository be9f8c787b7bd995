//go:build !linux && !freebsd

package nsjail

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

var errNoNamespaces = fmt.Errorf("network namespaces on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func openNamespace(string) (*Jail, error) { return nil, errNoNamespaces }

func openPID(int) (*Jail, error) { return nil, errNoNamespaces }

func (j *Jail) do(func() error) error { return errNoNamespaces }

func (j *Jail) addresses() ([]netip.Prefix, error) { return nil, errNoNamespaces }

func (j *Jail) watch(context.Context, func([]netip.Prefix)) error { return errNoNamespaces }
