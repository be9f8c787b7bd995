//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"jailtap/nsjail/confine"
)

// A construction is a jail in the making: its namespaces, its cgroup, what it sees of
// files, and its first process, which may have a command for a child.
type construction struct {
	spec       *Spec
	cgroupRoot string // the mount that cgroup is in
	cgroup     string
	command    *Command // nil: none yet

	process *initSpec // of the first process
	agent   *agent    // the first process, from start on
}

// run does it on a thread of its own. The first process is started when the host's
// files are still in sight, and waits until all is in its place; what pivot_root(2)
// does to this thread it does to that process too.
func (c *construction) run() error {
	prepared := make(chan error, 1)
	go func() { prepared <- c.prepare() }() // namespaces take their time
	if err := errors.Join(c.unshare(), <-prepared); err != nil {
		return err
	}
	mounts, err := planMounts(c.spec.Mounts)
	defer func() {
		for _, m := range mounts {
			m.close()
		}
	}()
	if err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	if err := c.furnish(mounts); err != nil {
		c.agent.abandon()
		return err
	}
	return nil
}

// prepare makes what the first process needs and no thread must leave the host for.
// The rules of a shared jail are on its cgroup before any process is in it.
func (c *construction) prepare() (err error) {
	if _, err := initFile(); err != nil {
		return err
	}
	mode := uint32(modeInit)
	if c.command != nil {
		mode = modeInitAndCommand
	}
	if c.process, err = c.spec.confinement(mode, nil); err != nil {
		return err
	}
	if err := makeCgroup(c.cgroupRoot, c.cgroup, c.spec.Limits); err != nil {
		return err
	}
	if c.spec.Network == Shared {
		return confine.Attach(c.cgroup, c.spec.plainAddresses())
	}
	return nil
}

// finish waits until the first process has given up its privileges, and its command,
// if there is one, is ready to go.
func (c *construction) finish() (*firstCommand, error) {
	fd, err := c.agent.expect(confined)
	if err != nil {
		c.agent.abandon()
		return nil, err
	}
	if c.command == nil {
		c.agent.control.Close()
		return nil, nil
	}
	pidfd, err := takeFrom(c.agent.pid, int(fd))
	if err != nil {
		c.agent.abandon()
		return nil, err
	}
	return &firstCommand{c.spec.Name, c.command.Argv[0], os.NewFile(uintptr(pidfd), "pidfd"), c.agent}, nil
}

// unshare leaves the host's namespaces but for that of processes, which only a
// child leaves.
func (c *construction) unshare() error {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	if c.spec.ownStack() {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces: %w: it needs CAP_SYS_ADMIN (run with sudo)", err)
	}
	if err := unix.Sethostname([]byte(c.spec.Hostname)); err != nil {
		return fmt.Errorf("host.hostname %q: %w", c.spec.Hostname, err)
	}
	if err := unix.Setdomainname([]byte(c.spec.Domain)); err != nil {
		return fmt.Errorf("host.domainname %q: %w", c.spec.Domain, err)
	}
	if c.spec.ownStack() {
		return loopbackUp()
	}
	return nil
}

// ownStack reports whether a jail has a network namespace of its own.
func (s *Spec) ownStack() bool { return s.Network == VNET || s.Network == NoNetwork }

// loopbackUp sets this thread's lo up, which has its addresses from that.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err == nil {
		req.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// start starts the first process in the cgroup and in a process namespace.
func (c *construction) start() error {
	cgroup, err := os.Open(c.cgroup)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	argv, env := []string{"jailtap: jail " + c.spec.Name}, []string(nil)
	var files []*os.File
	if c.command != nil {
		if err := c.process.setUser(c.command.User); err != nil {
			return err
		}
		usual, err := c.command.usual()
		if err != nil {
			return err
		}
		defer usual.Close()
		if files, err = c.command.files(usual); err != nil {
			return err
		}
		argv, env = c.command.argv(argv[0]), c.command.Env
	}
	c.agent, err = startAgent(c.process, argv, env, files, &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
	})
	return err
}

// confinement is what all processes of a jail have given up. calls are told to an
// agent.
func (s *Spec) confinement(mode uint32, calls []Call) (*initSpec, error) {
	insns, err := filter(calls)
	if err != nil {
		return nil, err
	}
	spec := &initSpec{Mode: mode, Caps: s.caps()}
	if len(calls) > 0 {
		spec.SeccompFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	return spec, spec.setFilter(insns)
}

// furnish makes the jail's tree around its first process, and then lets it go on.
func (c *construction) furnish(mounts []planned) error {
	fd, err := c.agent.expect(procReady)
	if err != nil {
		return err
	}
	taken, err := takeFrom(c.agent.pid, int(fd))
	if err != nil {
		return err
	}
	proc := mounted{taken}
	defer proc.close()
	root, err := enterRoot(c.spec.Path)
	if err != nil {
		return err
	}
	defer root.close()
	unix.Umask(0) // of this thread, since it has a root of its own
	if c.spec.Devfs || isDirectory(root, "dev") {
		if err := mountDev(root); err != nil {
			return err
		}
	}
	if c.spec.Procfs || isDirectory(root, "proc") {
		if err := mountProc(root, proc); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if err := m.over(root.fd, m.target); err != nil {
			return err
		}
	}
	return c.agent.release()
}

// takeFrom takes a descriptor of a child.
func takeFrom(pid, fd int) (ours int, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	if ours, err = unix.PidfdGetfd(pidfd, fd, 0); err != nil {
		return -1, fmt.Errorf("pidfd_getfd (Linux 5.6): %w", err)
	}
	return ours, nil
}

// isDirectory reports whether a jail has a directory of its own, and no link to
// one, of a name.
func isDirectory(root mounted, name string) bool {
	fd, err := directory(root.fd, name)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}
