package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// capabilities are those that the daemon keeps, with what it needs them for
// (capabilities(7)): what fails without. Keep in sync with
// docs/systemd/jailtap.service.
func (f *serveFlags) capabilities() map[int]string {
	keep := map[int]string{
		unix.CAP_NET_RAW:    "packet sockets",
		unix.CAP_NET_ADMIN:  "the guards on sending, and the mark that they know",
		unix.CAP_SYS_ADMIN:  "enter network namespaces; take up programs and maps by their numbers, for which CAP_BPF is not enough",
		unix.CAP_SYS_PTRACE: "open the network namespaces of other users' processes",
		unix.CAP_SETUID:     "compile expressions as nobody",
		unix.CAP_SETGID:     "compile expressions as nobody",
		unix.CAP_KILL:       "end the process that does",
	}
	if f.cgroup == "" {
		keep[unix.CAP_DAC_OVERRIDE] = "a cgroup at the root, where nobody may write (mode 0555)"
	}
	if f.group != "" {
		keep[unix.CAP_CHOWN] = "the group of the socket"
	}
	return keep
}

// dropCapabilities gives up for good what the daemon does not need. Capabilities
// are a thread's, and Go has threads already: so one thread takes the others out of
// its bounding set, and executes the program anew, which has one thread then.
func dropCapabilities(keep map[int]string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dropped := false
	for c := 0; ; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // there are no more
			break
		}
		if err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
		if has == 0 || keep[c] != "" {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("give up capability %d (without CAP_SETPCAP the daemon has to be started with no more than it needs): %w", c, err)
		}
		dropped = true
	}
	if !dropped {
		return nil
	}
	return fmt.Errorf("execute the daemon with less privileges: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}
