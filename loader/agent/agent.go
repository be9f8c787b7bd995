// Package agent runs programs that know nothing of jailtap, and gives them
// captive sockets where they ask the system for packet sockets.
//
// # How
//
// The command runs without any capability under a seccomp filter that holds
// back two kinds of system calls and tells the agent of them (seccomp_unotify(2)):
//   - socket(AF_PACKET, …): the agent makes a captive socket and puts it among
//     the caller's descriptors;
//   - setsockopt of SOL_SOCKET that attaches, detaches or locks a filter: where
//     the socket is a captive one, the agent carries it out on the user's part of
//     the captive's filter; else the kernel does what it always does.
//
// # Security considerations
//
// The filter is a convenience, not the boundary. The boundary is that the
// command has no capability, so that a packet socket that it does not get from
// the agent it does not get at all, and that a captive socket's own filter is
// locked in the kernel. A call that the agent never hears of (io_uring) meets
// those two, and fails.
//
// The agent acts on the caller's memory only after it has copied it, and on
// the copy. It lets a call go on in the kernel (SECCOMP_USER_NOTIF_FLAG_CONTINUE)
// only because of what the socket is, never because of what memory says. If
// another thread exchanges the descriptor for a captive one in between, the
// kernel refuses the call, since the captive's filter is locked: EPERM.
//
// System calls of other architectures and of x32 are ENOSYS, all of them:
// Linux runs no cgroup/setsockopt program for those (do_sock_setsockopt in
// net/socket.c), and with that the guard on a captive's options.
//
// When the agent dies, calls that it would be told of are ENOSYS, and captive
// sockets stay what they are.
package agent

import (
	"context"
	"log/slog"
	"os"

	"jailtap/bpf"
	"jailtap/loader"
)

// Captives makes captive sockets. A *Fleet is one. Its methods are called from
// several goroutines at once.
type Captives interface {
	// New makes one with frames that begin with the link-level header, or, if
	// datagram, with the network header.
	New(datagram bool) (Captive, error)
	// Existing are the cookies of the sockets that there are, of these and others.
	// It may miss some, but not time and again.
	Existing() (map[uint64]bool, error)
}

// A Captive is a captive socket: *loader.Captive is one.
type Captive interface {
	FD() int
	Cookie() uint64
	SetFilter(bpf.Program) error
	ClearFilter() error
	// Release closes FD, so that the socket ends with its last holder. The other
	// methods go on working.
	Release() error
	Close() error
}

// Options are those of Serve.
type Options struct {
	Log *slog.Logger // nil: slog.Default()

	// MaxCaptives is how many captive sockets there may be at once; 0: 256.
	// One more is ENOBUFS.
	MaxCaptives int

	// Admit, if there is one, says whether a thread may have a captive socket; an
	// error is EPERM. The number is that in our PID namespace. What Admit reads
	// under it was the thread's own if the thread waits thereafter, which waits
	// tells. Serve asks that too before it gives a socket.
	Admit func(tid int, waits func() bool) error
}

// Serve answers the notifications of a seccomp filter with Rules until no process
// is under it any more, which is nil, or ctx ends, which is ctx's error. It
// reads callers' memory and descriptors, for which it needs CAP_SYS_PTRACE
// (ptrace(2), PTRACE_MODE_ATTACH_REALCREDS) where they are other users'.
//
// What it makes it closes, not captives itself, nor listener.
func Serve(ctx context.Context, listener *os.File, captives Captives, o Options) error {
	return serve(ctx, listener, captives, o)
}

// Config says how a command is run.
type Config struct {
	// Open makes what makes captives. It is called when the command's process
	// is there, so that what Open does to this process (loader.OpenWarden moves
	// it to a cgroup) is not passed on, and before the command is executed.
	// close is called when nobody is left to ask for one.
	Open func() (captives Captives, close func(), err error)

	Namespace loader.Namespace // the network namespace that the command runs in; nil: the caller's
	User      *User            // who the command runs as; nil: the caller

	Stdin, Stdout, Stderr *os.File // nil: those of this process

	Options Options
}

// A User is a user and its groups.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary ones
}

// Run runs a command and serves it. argv[0] is looked up in PATH. It returns
// when the last process under the filter has ended: the exit status of the
// command, which is 128 and the signal's number if one killed it. Signals that
// this process gets meanwhile are forwarded to the command; when it has ended
// and left others behind, SIGHUP, SIGINT, SIGTERM and the end of ctx end the
// service. If there is an error the command was not executed, or nobody serves it.
//
// As user 0 the command still is the owner of root's files, and may kill the
// agent. Calls that change the user or the group of a process or a file then
// succeed and do nothing, since a program that tries to give up privileges that
// it does not have (tcpdump) else refuses to work.
//
// A program that calls Run has to call Child first thing in main.
func Run(ctx context.Context, cfg Config, argv []string) (status int, err error) {
	return run(ctx, cfg, argv)
}

// An ExecError is about a command that could not be executed.
type ExecError struct {
	Command string
	Err     error
}

func (e *ExecError) Error() string { return e.Command + ": " + e.Err.Error() }

func (e *ExecError) Unwrap() error { return e.Err }

// Child does not return if this process was started by Run, to become its
// command.
func Child() { child() }
