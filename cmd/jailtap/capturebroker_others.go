//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// mayOpenPacketSockets is true where nobody could be asked instead.
func mayOpenPacketSockets() bool { return true }

func (l *liveCapture) brokered(context.Context) error {
	return fmt.Errorf("a broker on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
