package nsjail

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FreeBSD's words for what a process waits for (the wmesg of its msleep(9)).
const (
	waitAccept  = "accept"
	waitChild   = "wait"
	waitConnect = "connec"
	waitFutex   = "uwait"
	waitKqueue  = "kqread"
	waitLock    = "lockf"
	waitPause   = "pause"
	waitPipe    = "piperd"
	waitPipeOut = "pipewr"
	waitSelect  = "select"
	waitSignal  = "sigwait"
	waitSleep   = "nanslp"
	waitSocket  = "sbwait"
	waitTTY     = "ttyin"
	waitTTYOut  = "ttyout"
	waitUnknown = "unknown"
)

// bySyscall has what a process waits for in a system call, for those that all
// architectures have; otherSyscalls has the others.
var bySyscall = map[int]string{
	unix.SYS_ACCEPT4:         waitAccept,
	unix.SYS_CLOCK_NANOSLEEP: waitSleep,
	unix.SYS_CONNECT:         waitConnect,
	unix.SYS_EPOLL_PWAIT:     waitKqueue,
	unix.SYS_FLOCK:           waitLock,
	unix.SYS_FUTEX:           waitFutex,
	unix.SYS_NANOSLEEP:       waitSleep,
	unix.SYS_PPOLL:           waitSelect,
	unix.SYS_PSELECT6:        waitSelect,
	unix.SYS_RECVFROM:        waitSocket,
	unix.SYS_RECVMSG:         waitSocket,
	unix.SYS_RT_SIGSUSPEND:   waitPause,
	unix.SYS_RT_SIGTIMEDWAIT: waitSignal,
	unix.SYS_SENDMSG:         waitSocket,
	unix.SYS_SENDTO:          waitSocket,
	unix.SYS_WAIT4:           waitChild,
	unix.SYS_WAITID:          waitChild,
}

// byChannel has what a process waits for in a function of the kernel whose name
// has these words, the first that fits.
var byChannel = []struct{ part, word string }{
	{"n_tty_read", waitTTY},
	{"n_tty_write", waitTTYOut},
	{"tty_", waitTTY},
	{"pipe_read", waitPipe},
	{"pipe_write", waitPipeOut},
	{"poll_schedule_timeout", waitSelect},
	{"do_select", waitSelect},
	{"do_poll", waitSelect},
	{"do_sys_poll", waitSelect},
	{"ep_poll", waitKqueue},
	{"epoll_wait", waitKqueue},
	{"nanosleep", waitSleep},
	{"do_wait", waitChild},
	{"sigsuspend", waitPause},
	{"pause", waitPause},
	{"sigtimedwait", waitSignal},
	{"futex", waitFutex},
	{"_accept", waitAccept},
	{"wait_for_connect", waitConnect},
	{"locks_lock", waitLock},
	{"wait_for_more_packets", waitSocket},
	{"sk_wait_data", waitSocket},
	{"unix_stream", waitSocket},
}

// stateWord is FreeBSD's word for what a process does.
func stateWord(pid int, state byte, runnable bool) string {
	switch {
	case state == 'Z' || state == 'X':
		return "zombie"
	case state == 'T' || state == 't':
		return "suspended"
	case runnable:
		return "running"
	}
	if word := syscallWord(pid); word != "" {
		return word
	}
	return channelWord(pid)
}

// syscallWord is by the system call that the process is in (proc_pid_syscall(5)),
// or empty if that says nothing.
func syscallWord(pid int) string {
	text, err := os.ReadFile(filepath.Join(processDir(pid), "syscall"))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return ""
	}
	call, err := strconv.Atoi(fields[0])
	if err != nil {
		return ""
	}
	reads := call == unix.SYS_READ || call == unix.SYS_READV
	if reads || call == unix.SYS_WRITE || call == unix.SYS_WRITEV {
		return fileWord(pid, fields[1], reads)
	}
	if word, ok := bySyscall[call]; ok {
		return word
	}
	return otherSyscalls[call]
}

// fileWord is by the kind of file that a process reads or writes, whose number
// is hexadecimal.
func fileWord(pid int, fd string, reads bool) string {
	n, err := strconv.ParseUint(fd, 0, 32)
	if err != nil {
		return ""
	}
	path, err := os.Readlink(filepath.Join(processDir(pid), "fd", strconv.FormatUint(n, 10)))
	if err != nil {
		return ""
	}
	pick := func(in, out string) string {
		if reads {
			return in
		}
		return out
	}
	switch {
	case strings.HasPrefix(path, "/dev/pts/") || strings.HasPrefix(path, "/dev/tty") || path == "/dev/console" || path == "/dev/ptmx":
		return pick(waitTTY, waitTTYOut)
	case strings.HasPrefix(path, "pipe:"):
		return pick(waitPipe, waitPipeOut)
	case strings.HasPrefix(path, "socket:"):
		return waitSocket
	}
	return ""
}

// channelWord is by the function of the kernel that the process sleeps in, or
// that function's name itself.
func channelWord(pid int) string {
	text, err := os.ReadFile(filepath.Join(processDir(pid), "wchan"))
	name := string(text)
	if err != nil || name == "0" || name == "" {
		return waitUnknown
	}
	for _, c := range byChannel {
		if strings.Contains(name, c.part) {
			return c.word
		}
	}
	return name
}
