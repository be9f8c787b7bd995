package jail

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
)

// A Registry is where jails are kept.
type Registry struct {
	Dir    string // of their records, a directory that root alone may change
	Cgroup string // that holds theirs, below the mount of cgroup2
	Agent  Agent  // of jails that may capture; nil: there are none
}

// An Agent answers system calls in the kernel's place (seccomp_unotify(2)): those of
// jails with Spec.BPF, for which the kernel knows of no jails.
type Agent interface {
	// Calls are those that are held back.
	Calls() []Call
	// Serve begins to answer those of a command that is about to be executed, and of
	// what that starts. It goes on without this process, until none of them is left.
	Serve(j *Jail, listener *os.File) error
}

// AgentLog is a file for what an agent has to say; it goes with the jail.
func (r Registry) AgentLog(name string) string { return filepath.Join(r.Dir, name+".agent.log") }

// A Call is a system call whose arguments have values, as far as the kernel takes no
// more of them than the lower half.
type Call struct {
	Number uint32
	Args   []Arg
}

// An Arg is the argument of an index from 0 on.
type Arg struct {
	Index uint
	Value uint32
}

// System is the registry of the system's jails.
var System = Registry{Dir: "/run/jailtap/jails", Cgroup: "jailtap-jails"}

// A Jail is one that is there, or was when it was found.
type Jail struct {
	registry Registry
	rec      *record
}

// A Starter is told of a jail's start and stop.
type Starter struct {
	Stdin          *os.File  // of Commands.Command; nil: /dev/null
	Stdout, Stderr *os.File  // of the same
	Out            io.Writer // what commands of the host print, and what is waited for
	OnlyRemove     bool      // Remove runs no commands

	// Run starts Commands.Command and waits for it. nil: Start and Wait.
	Run func(*Jail, Command) (status int, err error)
}

// Create makes a jail and runs the commands of its start. If anything fails,
// nothing is left, and the error has the end of what a failed command has
// printed. A jail that is not to persist is removed when its last process ends,
// or, if that was a process of Command, before Create returns.
//
// The error of a name or jid that is taken wraps ErrExists. That Command has
// failed is a *StatusError.
func (r Registry) Create(ctx context.Context, spec Spec, s Starter) (*Jail, error) {
	return r.create(ctx, spec, s)
}

// List has the jails that there are, by their jids. It needs root.
func (r Registry) List() ([]*Jail, error) { return r.list() }

// Find finds a jail by its name or jid. The error of an unknown one wraps
// ErrUnknown.
func (r Registry) Find(nameOrJID string) (*Jail, error) { return r.find(nameOrJID) }

// Repair removes what is left of jails that have ended, or whose commands were
// killed before they could clean up.
func (r Registry) Repair() error { return r.repair() }

// Remove runs the commands of a jail's stop and removes all that is of it. That
// there is no such jail is no error.
func (r Registry) Remove(ctx context.Context, name string, s Starter) error {
	return r.remove(ctx, name, s)
}

// A Change is what may be changed while a jail runs; nil is as it was.
type Change struct {
	Hostname  *string
	Persist   *bool
	Addresses *[]Address // all that it has then, of a shared or a vnet jail
	Params    []Param    // those that say so
}

// Modify changes a jail. If it fails the jail is as it was.
func (r Registry) Modify(name string, c Change) error { return r.modify(name, c) }

// Spec is what the jail was made from, with its jid.
func (j *Jail) Spec() Spec { return j.spec() }

// PID is the number of the jail's first process.
func (j *Jail) PID() int { return j.pid() }

// Processes are the numbers of the processes in the jail, the first one too.
func (j *Jail) Processes() []int { return j.processes() }

// Addresses are those that the jail is to have, each as a prefix of one address,
// those of IPv4 and IPv6 in the order of the configuration.
func (j *Jail) Addresses() []netip.Prefix {
	var list []netip.Prefix
	for _, a := range j.spec().Addresses {
		list = append(list, netip.PrefixFrom(a.Prefix.Addr(), a.Prefix.Addr().BitLen()))
	}
	return list
}

// Watch calls report with the addresses as they are now, and then again whenever they
// have been changed, until ctx ends, when it returns nil. It is an error if the jail
// ends. Calls of report do not overlap.
func (j *Jail) Watch(ctx context.Context, report func([]netip.Prefix)) error {
	return j.watch(ctx, report)
}

// HostInterface is where on the host the jail's packets pass: the host's end of a
// vnet jail's link, or the interface that has a shared jail's first address.
func (j *Jail) HostInterface() (string, error) { return j.hostInterface() }

// A Command is one that runs in a jail.
type Command struct {
	Argv []string // a program, which is looked up in Env's PATH, and its arguments
	Env  []string
	Dir  string // "": /
	User User   // the zero one is root

	Stdin, Stdout, Stderr *os.File // nil: Terminal, or /dev/null; a directory is an error

	// Terminal is what OpenTerminal has returned: the command has the terminal as its
	// controlling one, in a session of its own. nil: it stays in the caller's session,
	// and has the caller's controlling terminal.
	Terminal *os.File
}

// OpenTerminal makes a terminal of the jail's own, in its /dev/pts, and opens its
// master side: what is written there is typed, and what the jail prints is read.
// It can be waited for with deadlines. Closing it hangs the terminal up: the
// processes of the command's session get SIGHUP.
func (j *Jail) OpenTerminal() (master *os.File, err error) { return j.openTerminal() }

// Start starts a command in the jail. The error of one that cannot be executed is
// an *ExecError.
func (j *Jail) Start(c Command) (*os.Process, error) { return j.start(c) }

// Wait waits for a command and hands it the signals that this process gets. The
// exit status is 128 and the signal's number if a signal ended it.
func Wait(process *os.Process) (status int) { return wait(process) }

// LookupUser finds a user of the jail's own passwd(5) and group(5), by name or
// number, and the directory that is its home.
func (j *Jail) LookupUser(name string) (u User, home, shell string, err error) {
	return j.lookupUser(name)
}

// A User is who a command runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary ones
}

// An ExecError is about a command that could not be executed in a jail.
type ExecError struct {
	Jail, Command string
	Err           error
}

func (e *ExecError) Error() string { return "jail " + e.Jail + ": " + e.Command + ": " + e.Err.Error() }

func (e *ExecError) Unwrap() error { return e.Err }

// A StatusError is that a command of a jail's start or stop has failed.
type StatusError struct {
	Jail, Param, Command string
	Status               int    // its exit status, or 128 and the number of a signal
	Output               string // the end of what it printed, if that went to a log
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("jail %s: %s: %q: exit status %d", e.Jail, e.Param, e.Command, e.Status)
	if e.Output != "" {
		text += "; its output ends with: " + e.Output
	}
	return text
}

// CleanEnv is the environment of a command that has none of the caller's but TERM.
func CleanEnv(user, home, shell string) []string {
	env := []string{"PATH=" + defaultPath, "HOME=" + home, "SHELL=" + shell, "USER=" + user}
	if term, ok := os.LookupEnv("TERM"); ok {
		env = append(env, "TERM="+term)
	}
	return env
}

// defaultPath is where commands are looked for if the environment does not say.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
