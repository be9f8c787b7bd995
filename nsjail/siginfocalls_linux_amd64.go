package nsjail

import "golang.org/x/sys/unix"

// otherSyscalls are those of bySyscall that not all architectures have.
var otherSyscalls = map[int]string{
	unix.SYS_ACCEPT:     waitAccept,
	unix.SYS_EPOLL_WAIT: waitKqueue,
	unix.SYS_PAUSE:      waitPause,
	unix.SYS_POLL:       waitSelect,
	unix.SYS_SELECT:     waitSelect,
}
