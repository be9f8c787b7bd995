//go:build amd64 || arm64

package jail

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A process is one and no other: a number is given to another process later, but
// not with the same start.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in clock ticks since boot (proc_pid_stat(5))
}

// identify finds the process that has a number.
func identify(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The command, the second field, is in parentheses and may have any.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const start = 22 - 3
	if len(fields) <= start {
		return process{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	n, err := strconv.ParseUint(string(fields[start]), 10, 64)
	return process{pid, n}, err
}

// errEnded is that a process is no more.
var errEnded = errors.New("the process has ended")

// open opens a pidfd of a process that has not ended.
func (p process) open() (*os.File, error) {
	if p.PID <= 0 {
		return nil, errEnded
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, errEnded
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d (Linux 5.3): %w", p.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// The pidfd holds whatever process has the number now, so that what is read of
	// the number thereafter is its own, unless it has ended.
	now, err := identify(p.PID)
	if err != nil || now != p || ended(fd) {
		f.Close()
		return nil, errEnded
	}
	return f, nil
}

// ended reports whether the process of a pidfd has ended, waited for or not.
func ended(pidfd int) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return n == 1 && err == nil
}

// alive reports whether a process is there.
func (p process) alive() bool {
	f, err := p.open()
	if err != nil {
		return false
	}
	f.Close()
	return true
}
