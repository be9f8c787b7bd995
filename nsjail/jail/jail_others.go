//go:build !(linux && (amd64 || arm64))

package jail

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
)

type record struct{}

var errOther = fmt.Errorf("jails of namespaces need Linux on amd64 or arm64, and this is %s on %s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)

func (Registry) create(context.Context, Spec, Starter) (*Jail, error) { return nil, errOther }
func (Registry) remove(context.Context, string, Starter) error        { return errOther }
func (Registry) modify(string, Change) error                          { return errOther }
func (Registry) list() ([]*Jail, error)                               { return nil, errOther }
func (Registry) find(string) (*Jail, error)                           { return nil, errOther }
func (Registry) repair() error                                        { return errOther }

func (*Jail) spec() Spec                         { return Spec{} }
func (*Jail) pid() int                           { return 0 }
func (*Jail) processes() []int                   { return nil }
func (*Jail) start(Command) (*os.Process, error) { return nil, errOther }
func (*Jail) lookupUser(string) (u User, home, shell string, err error) {
	return u, "", "", errOther
}

func (*Jail) watch(context.Context, func([]netip.Prefix)) error { return errOther }
func (*Jail) hostInterface() (string, error)                    { return "", errOther }
