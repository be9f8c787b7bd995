//go:build amd64 || arm64

package jail

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// construct makes a jail's namespaces, in a cgroup that is there, and what it sees
// of files, and starts its first process. If it fails nothing is left.
func construct(spec *Spec, cgroup string) (process, error) {
	c := &construction{spec: spec, cgroup: cgroup}
	err := onLostThread(c.run)
	return c.first, err
}

// A construction is a jail in the making.
type construction struct {
	spec   *Spec
	cgroup string
	first  process
}

// run does it on a thread of its own. The first process is started when the host's
// files are still in sight, and waits until all is in its place; what pivot_root(2)
// does to this thread it does to that process too.
func (c *construction) run() error {
	if err := c.unshare(); err != nil {
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
	a, err := c.start()
	if err != nil {
		return err
	}
	if c.first, err = identify(a.process.Pid); err == nil { // as long as /proc is the host's
		err = c.furnish(a, mounts)
	}
	if err != nil {
		a.abandon()
		return err
	}
	a.control.Close()
	return a.process.Release()
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
func (c *construction) start() (*agent, error) {
	cgroup, err := os.Open(c.cgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close()
	spec, err := c.spec.confinement(modeInit, nil)
	if err != nil {
		return nil, err
	}
	return startAgent(spec, []string{"jailtap: jail " + c.spec.Name}, []string{}, []*os.File{nil, nil, nil}, &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID, UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
	})
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

// furnish makes the jail's tree around its first process, and then has it give up
// its privileges.
func (c *construction) furnish(a *agent, mounts []planned) error {
	fd, err := a.expect(procReady)
	if err != nil {
		return err
	}
	proc, err := takeFrom(a.process.Pid, int(fd))
	if err != nil {
		return err
	}
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
	if err := a.release(); err != nil {
		return err
	}
	_, err = a.expect(confined)
	return err
}

// takeFrom takes a descriptor of a child.
func takeFrom(pid, fd int) (mounted, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return mounted{}, err
	}
	defer unix.Close(pidfd)
	ours, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return mounted{}, fmt.Errorf("pidfd_getfd (Linux 5.6): %w", err)
	}
	return mounted{ours}, nil
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
