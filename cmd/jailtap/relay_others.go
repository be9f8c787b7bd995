//go:build !linux

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"jailtap/nsjail/jail"
)

func onTerminal(*jail.Jail, jail.Command) (int, error) {
	return 1, fmt.Errorf("terminals of jails on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func hasForeground(*os.File) bool { return false }
