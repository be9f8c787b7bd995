//go:build amd64 || arm64

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A notification is a system call that waits for an answer: struct
// seccomp_notif of linux/seccomp.h.
type notification struct {
	id    uint64
	tid   uint32 // of the calling thread, in our PID namespace
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// arg is an argument of type int or unsigned int.
func (n *notification) arg(i int) uint32 { return uint32(n.args[i]) }

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	errno int32 // negative
	flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	id         uint64
	flags      uint32
	srcFD      uint32
	newFD      uint32
	newFDFlags uint32
}

// A listener is where notifications come from.
type listener struct{ fd int }

// receive takes the next notification; nil if its caller has gone meanwhile.
func (l listener) receive() (*notification, error) {
	n := new(notification) // the kernel wants it zeroed
	switch err := l.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n)); err {
	case nil:
		return n, nil
	case unix.ENOENT, unix.EINTR:
		return nil, nil
	default:
		return nil, fmt.Errorf("receive a notification: %w", err)
	}
}

// valid reports whether the caller still waits. What was read of the thread
// tid before is then of that thread, since a number is not given again while it
// is in use.
func (l listener) valid(n *notification) bool {
	id := n.id
	return l.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

// answer ends the call with an error, or with 0. That the caller has gone is not
// worth telling.
func (l listener) answer(n *notification, errno unix.Errno) {
	l.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&response{id: n.id, errno: -int32(errno)}))
}

// pass has the kernel carry out the call.
func (l listener) pass(n *notification) {
	l.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}))
}

// give puts our descriptor fd among the caller's and ends the call with its
// number there, both or neither (SECCOMP_ADDFD_FLAG_SEND, Linux 5.14). A signal while
// it waits would make that neither, and a call that has succeeded with 0
// (seccomp_notify_addfd in kernel/seccomp.c).
func (l listener) give(n *notification, fd int, cloexec bool) error {
	defer withoutSignals()()
	a := &addFD{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcFD: uint32(fd)}
	if cloexec {
		a.newFDFlags = unix.O_CLOEXEC
	}
	return l.ioctl(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(a))
}

func (l listener) ioctl(request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), request, uintptr(arg))
		switch {
		case errno == 0:
			return nil
		case errno == unix.EINTR && request != unix.SECCOMP_IOCTL_NOTIF_RECV:
			// Sending waits for a lock, in which a signal of Go's scheduler
			// may come.
		default:
			return errno
		}
	}
}

// withoutSignals holds signals back from this thread, those of Go's scheduler too.
func withoutSignals() (restore func()) {
	runtime.LockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before)
	return func() {
		unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
		runtime.UnlockOSThread()
	}
}

var errNobodyLeft = errors.New("no process is under the filter any more")

// A waiter waits for notifications or the end of a context.
type waiter struct {
	listener
	stop *os.File // can be read from when the context has ended
}

func newWaiter(ctx context.Context, l listener) (w *waiter, done func(), err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	undo := context.AfterFunc(ctx, func() { write.Close() })
	return &waiter{l, read}, func() { undo(); write.Close(); read.Close() }, nil
}

// wait returns nil when there is a notification to be received.
func (w *waiter) wait(ctx context.Context) error {
	polled := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(w.stop.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(polled, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait for notifications: %w", err)
		case polled[1].Revents != 0:
			return context.Cause(ctx)
		case polled[0].Revents&unix.POLLIN != 0:
			return nil
		default: // POLLHUP
			return errNobodyLeft
		}
	}
}
