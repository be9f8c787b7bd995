//go:build amd64 || arm64

package jail

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func (j *Jail) start(c Command) (*os.Process, error) {
	if len(c.Argv) == 0 {
		return nil, errors.New("no command")
	}
	first, err := j.rec.First.open()
	if err != nil {
		return nil, fmt.Errorf("jail %s: %w", j.rec.Spec.Name, ErrUnknown)
	}
	defer first.Close()
	e := &entry{jail: j, spec: &j.rec.Spec, command: c, first: first, cgroup: j.rec.Cgroup}
	process, err := e.start()
	if errno, ok := errors.AsType[unix.Errno](err); ok && errno == err {
		return nil, &ExecError{j.rec.Spec.Name, c.Argv[0], errno}
	}
	if err != nil {
		return nil, fmt.Errorf("jail %s: %s: %w", j.rec.Spec.Name, c.Argv[0], err)
	}
	return process, nil
}

// An entry is a command on its way into a jail.
type entry struct {
	jail    *Jail
	spec    *Spec
	command Command
	first   *os.File // pidfd
	cgroup  string
}

func (e *entry) start() (*os.Process, error) {
	var calls []Call
	if e.spec.BPF {
		if e.jail.registry.Agent == nil {
			return nil, errors.New("allow.bpf: there is no agent that would make its packet sockets")
		}
		calls = e.jail.registry.Agent.Calls()
	}
	spec, err := e.spec.confinement(modeCommand, calls)
	if err != nil {
		return nil, err
	}
	if err := spec.setUser(e.command.User); err != nil {
		return nil, err
	}
	spec.Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP | unix.CLONE_NEWNET
	usual, err := e.command.usual()
	if err != nil {
		return nil, err
	}
	defer usual.Close()
	files, err := e.command.files(usual)
	if err != nil {
		return nil, err
	}
	files = append(files, e.first)
	if e.command.Terminal != nil {
		files = append(files, usual)
	}
	a, err := e.agent(spec, files)
	if err != nil {
		return nil, err
	}
	if e.spec.BPF {
		if err := e.hire(a); err != nil {
			a.abandon()
			return nil, err
		}
	}
	r, err := a.read()
	if errors.Is(err, io.EOF) { // exec has closed it
		a.control.Close()
		return os.FindProcess(a.pid)
	}
	a.abandon()
	if err != nil {
		return nil, err
	}
	return nil, r.err()
}

// hire has the agent answer the command's calls before it makes any.
func (e *entry) hire(a *agent) error {
	fd, err := a.expect(listener)
	if err != nil {
		return err
	}
	taken, err := takeFrom(a.pid, int(fd))
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(taken), "seccomp listener")
	defer file.Close()
	if err := e.jail.registry.Agent.Serve(e.jail, file); err != nil {
		return fmt.Errorf("allow.bpf: %w", err)
	}
	return a.release()
}

// files are the command's standard descriptors. A directory would be a way out.
func (c *Command) files(usual *os.File) (list []*os.File, err error) {
	for i, f := range []*os.File{c.Stdin, c.Stdout, c.Stderr} {
		if f == nil {
			f = usual
		}
		if info, err := f.Stat(); err != nil || info.IsDir() {
			return nil, fmt.Errorf("descriptor %d is a directory of the host, from which all of it could be reached", i)
		}
		list = append(list, f)
	}
	return list, nil
}

// terminalFD is the number of the terminal as the program starts. Before it are the
// standard descriptors, the control socket, and the pidfd.
const terminalFD = 5

// usual is what a descriptor is that nobody has named: the terminal, if there is one.
func (c *Command) usual() (*os.File, error) {
	if c.Terminal != nil {
		return openSlave(c.Terminal, c.User)
	}
	return os.OpenFile(os.DevNull, os.O_RDWR, 0)
}

// argv are the arguments of the program of init.c for a command.
func (c *Command) argv(title string) []string {
	path := defaultPath
	for _, v := range c.Env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			path = value
		}
	}
	return append([]string{title, cmp.Or(c.Dir, "/"), path}, c.Argv...)
}

// agent starts the program in the jail's process namespace, which a thread enters
// for the sake of its children, and in its cgroup.
func (e *entry) agent(spec *initSpec, files []*os.File) (a *agent, err error) {
	cgroup, err := os.Open(e.cgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	sys := &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	if e.command.Terminal != nil {
		sys.Setsid, sys.Setctty, sys.Ctty = true, true, terminalFD
	}
	err = onLostThread(func() error {
		if err := unix.Setns(int(e.first.Fd()), unix.CLONE_NEWPID); err != nil {
			return fmt.Errorf("enter the jail (Linux 5.8): %w", err)
		}
		a, err = startAgent(spec, e.command.argv("jailtap: command"), e.command.Env, files, sys)
		return err
	})
	return a, err
}

func (j *Jail) spec() Spec {
	s := j.rec.Spec
	s.JID = j.rec.JID
	return s
}

func (j *Jail) pid() int { return j.rec.First.PID }

func (j *Jail) processes() []int { return members(j.rec.Cgroup) }
