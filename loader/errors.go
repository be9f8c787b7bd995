package loader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
)

// How an interface can end a capture.
var (
	ErrInterfaceGone = errors.New("the interface is gone: it was removed or moved to another namespace")
	ErrInterfaceDown = errors.New("the interface is down")
)

var (
	errClosed   = fmt.Errorf("the capture is closed: %w", os.ErrClosed)
	errBroken   = errors.New("the scope could not be narrowed: nothing more is shown")
	errUnscoped = errors.New("a capture without a scope cannot be given one")
)

// InterfaceError is about an interface that does not exist.
type InterfaceError struct {
	Name  string
	Known []string // those that there are in that namespace
	Err   error
}

func (e *InterfaceError) Error() string {
	return fmt.Sprintf("unknown interface %q: known are %s", e.Name, strings.Join(e.Known, ", "))
}

func (e *InterfaceError) Unwrap() error { return e.Err }

// interfaces names those that there are for the calling thread.
func interfaces() (names []string) {
	list, _ := net.Interfaces()
	for _, i := range list {
		names = append(names, i.Name)
	}
	if runtime.GOOS == "linux" {
		names = append(names, Any)
	}
	return names
}

// PrivilegeError is about something that this process may not do.
type PrivilegeError struct {
	Op         string
	Capability string // the missing one, as in capabilities(7); "": not on Linux
	Err        error
}

func (e *PrivilegeError) Error() string {
	if e.Capability == "" {
		return fmt.Sprintf("%s: %v: run as root, or let this user open it (devfs.rules(5))", e.Op, e.Err)
	}
	exe, err := os.Executable()
	if err != nil {
		exe = "jailtap"
	}
	return fmt.Sprintf("%s: %v: it needs %s; run with sudo, or grant it: sudo setcap %s+ep %s",
		e.Op, e.Err, e.Capability, strings.ToLower(e.Capability), exe)
}

func (e *PrivilegeError) Unwrap() error { return e.Err }
