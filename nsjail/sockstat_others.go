//go:build !linux

package nsjail

import (
	"errors"
	"fmt"
	"runtime"
)

func sockets(SocketQuery) ([]Socket, error) {
	return nil, fmt.Errorf("listing sockets on %s: %w: use the system's own sockstat or netstat", runtime.GOOS, errors.ErrUnsupported)
}
