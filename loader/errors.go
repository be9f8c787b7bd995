package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// How an interface can end a capture.
var (
	ErrInterfaceGone = errors.New("the interface is gone: it was removed or moved to another namespace")
	ErrInterfaceDown = errors.New("the interface is down")
)

// InterfaceError is about an interface that does not exist.
type InterfaceError struct {
	Name  string
	Known []string // those that exist in that namespace
	Err   error
}

func (e *InterfaceError) Error() string {
	return fmt.Sprintf("unknown interface %q: known are %s", e.Name, strings.Join(append(e.Known, Any), ", "))
}

func (e *InterfaceError) Unwrap() error { return e.Err }

// PrivilegeError is about something that this process may not do.
type PrivilegeError struct {
	Op         string
	Capability string // the missing one, as in capabilities(7)
	Err        error
}

func (e *PrivilegeError) Error() string {
	exe, err := os.Executable()
	if err != nil {
		exe = "jailtap"
	}
	return fmt.Sprintf("%s: %v: it needs %s; run with sudo, or grant it: sudo setcap %s+ep %s",
		e.Op, e.Err, e.Capability, strings.ToLower(e.Capability), exe)
}

func (e *PrivilegeError) Unwrap() error { return e.Err }
