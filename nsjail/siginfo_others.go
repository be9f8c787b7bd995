//go:build !linux

package nsjail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

var errNoSigInfo = fmt.Errorf("telling of a process on %s, whose terminals may do so themselves at Ctrl-T: %w", runtime.GOOS, errors.ErrUnsupported)

func foreground(*os.File) (int, error) { return 0, errNoSigInfo }

func sigInfo(int) (string, error) { return "", errNoSigInfo }

func terminalInfo(*os.File) (string, error) { return "", errNoSigInfo }
