//go:build amd64 || arm64

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childName is argv[0] of a process that is to become the command.
const childName = "jailtap: command"

// childConn is the child's end of the socket pair to the agent.
const childConn = 3

// A message of the child is one byte and what belongs to it.
const (
	msgListener = 'l' // comes with the listener
	msgSetup    = 'e' // the text of an error
	msgExec     = 'x' // errno of execve, as a decimal number
)

// A childSpec says what to become. The child has it as its first argument; what
// follows are the command's arguments from argv[0] on.
type childSpec struct {
	Path string
	User *User
}

func child() {
	if os.Args[0] != childName {
		return
	}
	runtime.LockOSThread() // privileges and filter are the thread's
	// The operator's open files are not the command's.
	if err := unix.CloseRange(childConn, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		tell(msgSetup, fmt.Sprintf("close_range (Linux 5.11): %v", err))
	}
	// The agent first does what may fail on its side.
	if n, err := unix.Read(childConn, make([]byte, 1)); n != 1 || err != nil {
		os.Exit(1)
	}
	var spec childSpec
	if err := json.Unmarshal([]byte(os.Args[1]), &spec); err != nil {
		tell(msgSetup, err.Error())
	}
	listener, err := confine(spec.User)
	if err != nil {
		tell(msgSetup, err.Error())
	}
	if err := unix.Sendmsg(childConn, []byte{msgListener}, unix.UnixRights(listener), nil, 0); err != nil {
		tell(msgSetup, fmt.Sprintf("hand over the seccomp listener: %v", err))
	}
	unix.Close(listener) // close-on-exec by birth, but then the agent should be its only holder
	err = unix.Exec(spec.Path, os.Args[2:], os.Environ())
	tell(msgExec, fmt.Sprint(int(err.(unix.Errno))))
}

// tell tells the agent of an error and ends.
func tell(kind byte, text string) {
	unix.Write(childConn, append([]byte{kind}, text...))
	os.Exit(1)
}

// confine takes the thread's privileges, for good, and puts it under the filter.
func confine(u *User) (listener int, err error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := dropCapabilities(u); err != nil {
		return -1, err
	}
	return installFilter(filter(os.Geteuid() == 0))
}

// Of linux/securebits.h: no capabilities for being user 0, none that last over
// a change of user, none for what is executed; and all of it for good.
const securebits = 1<<0 | 1<<1 | // SECURE_NOROOT, and locked
	1<<3 | // SECURE_NO_SETUID_FIXUP locked: off
	1<<5 | // SECURE_KEEP_CAPS locked: off
	1<<6 | 1<<7 // SECURE_NO_CAP_AMBIENT_RAISE, and locked

// dropCapabilities empties all five sets (capabilities(7)). Each step needs a
// capability that a later one takes.
func dropCapabilities(u *User) error {
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, securebits, 0, 0, 0); err != nil {
		return fmt.Errorf("set securebits: %w: it needs CAP_SETPCAP (run with sudo)", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL && c > 0 { // there is no such capability, and no higher one
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	if u != nil {
		if err := becomeUser(u); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// becomeUser changes this thread's user, not that of all threads, as the
// functions of package syscall would: it is the one that will be left.
func becomeUser(u *User) error {
	groups := unsafe.Pointer(unsafe.SliceData(u.Groups))
	_, _, e1 := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.Groups)), uintptr(groups), 0)
	_, _, e2 := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.GID), uintptr(u.GID), uintptr(u.GID))
	_, _, e3 := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.UID), uintptr(u.UID), uintptr(u.UID))
	for _, errno := range []unix.Errno{e1, e2, e3} {
		if errno != 0 {
			return fmt.Errorf("become user %d and group %d: %w", u.UID, u.GID, errno)
		}
	}
	return nil
}

// installFilter puts the thread, and what it executes, under a seccomp filter
// and returns its listener.
func installFilter(c code) (listener int, err error) {
	insns, err := c.kernelForm()
	if err != nil {
		return -1, err
	}
	prog := &unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	// With the second flag (Linux 5.19) only a fatal signal interrupts a call
	// that the agent has begun to answer, so that a program with a timer gets on.
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	for _, f := range []uintptr{flags | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, flags} {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, f, uintptr(unsafe.Pointer(prog)))
		if errno == 0 {
			return int(fd), nil
		}
		err = errno
		if errno != unix.EINVAL {
			break
		}
	}
	if errors.Is(err, unix.EBUSY) {
		return -1, fmt.Errorf("install the seccomp filter: %w: this process is under one with a listener already, and there can be one only", err)
	}
	return -1, fmt.Errorf("install the seccomp filter: %w: it needs Linux 5.5 with CONFIG_SECCOMP_FILTER", err)
}
