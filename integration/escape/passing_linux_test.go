//go:build amd64 || arm64

package escape

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// passing are about sockets in other hands, other programs and other places.
var passing = []attempt{
	{name: "to a process outside", how: "SCM_RIGHTS out of jailtap run, to one without its seccomp filter", in: []setting{passed}, do: attackPassed},
	{name: "over exec", how: "the descriptor stays open while the program changes", in: both, control: true, do: overExec},
	{name: "to a child", how: "fork(2), then everything", in: both, do: nextStage(nil)},
	{name: "into a user namespace", how: "CLONE_NEWUSER: all capabilities, of the wrong namespace", in: both, do: nextStage(userNamespace(0))},
	{name: "into a network namespace", how: "CLONE_NEWUSER and CLONE_NEWNET: CAP_NET_ADMIN of another network", in: both,
		do: nextStage(userNamespace(unix.CLONE_NEWNET))},
	{name: "a packet socket of another namespace", how: "io_uring socket in a namespace of one's own, then setns(2) back", in: both, do: setnsBack},
	{name: "setns to init's namespaces", how: "/proc/1/ns, /run/netns and every other process's", in: both, do: setnsOthers},
	{name: "leave the cgroup", how: "write to cgroup.procs of every cgroup", in: both, do: leaveCgroup},
	{name: "leave the cgroup with a namespace", how: "CLONE_NEWUSER, CLONE_NEWCGROUP and a mount of one's own", in: both, do: mountCgroup},
	{name: "moved to another cgroup", how: "by an administrator; the guard is the socket's, not the process's", in: both, do: movedAway},
	{name: "the pins in a namespace", how: "CLONE_NEWUSER and CLONE_NEWNS: mount a bpffs", in: both, do: mountPins},
	{name: "open the descriptor again", how: "/proc/self/fd, /proc/self/map_files", in: both, do: reopen},
	{name: "a neighbour's socket", how: "pidfd_getfd(2), ptrace(2), /proc/PID/fd and /proc/PID/mem of another user's process", in: both, do: takeNeighbours},
	{name: "orphaned", how: "the parent has ended, the child goes on", in: []setting{run}, do: orphan},
}

// attackPassed does what the system calls are for, see calls.
func attackPassed(a *attacker) error { return a.abuse(a.captive()) }

func overExec(a *attacker) error {
	if a.stage != "" {
		return a.abuse(sourceFD)
	}
	must("keep", unix.Dup2(a.bound(), 9))
	must("move", unix.Dup2(9, sourceFD))
	return syscall.Exec("/proc/self/exe", []string{"attacker"}, append(os.Environ(), envStage+"=executed"))
}

func nextStage(attr *unix.SysProcAttr) func(*attacker) error {
	return func(a *attacker) error {
		if a.stage != "" {
			return a.abuseWithRights()
		}
		if err := a.goOn("child", a.bound(), attr); err != nil {
			return err
		}
		return errors.New("child ended")
	}
}

// abuseWithRights also tries what needs CAP_NET_ADMIN.
func (a *attacker) abuseWithRights() error {
	var t tally
	t.add(unix.SetsockoptInt(sourceFD, unix.SOL_PACKET, unix.PACKET_FANOUT, fanoutID))
	t.add(unix.SetsockoptInt(sourceFD, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20))
	t.add(unix.SetsockoptInt(sourceFD, unix.SOL_SOCKET, unix.SO_MARK, 0))
	t.add(pastQdisc(sourceFD, 0, a.frame()))
	t.add(sendControl(sourceFD, 1, a.frame()))
	ifr, err := unix.NewIfreq("eth0")
	must("name", err)
	ifr.SetUint16(unix.IFF_PROMISC)
	t.add(unix.IoctlIfreq(sourceFD, unix.SIOCSIFFLAGS, ifr))
	return then(t.met(), a.peekAndSend())
}

// peekAndSend is abuse where interfaces cannot be known by their names.
func (a *attacker) peekAndSend() error {
	var t tally
	for i := 1; i < 16; i++ {
		t.add(sendTo(sourceFD, i, a.frame()))
	}
	return then(t.met(), a.peek(sourceFD))
}

func userNamespace(more uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | more,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}}
}

func setnsBack(a *attacker) error {
	if a.stage == "" {
		host, err := os.Open("/proc/self/ns/net")
		must("own namespace", err)
		if err := a.goOn("elsewhere", int(host.Fd()), userNamespace(unix.CLONE_NEWNET)); err != nil {
			return err
		}
		return errors.New("child ended")
	}
	var t tally
	fd, err := uringSocket(unix.AF_PACKET, unix.SOCK_RAW, int(networkOrder(unix.ETH_P_ALL)))
	if t.add(said("io_uring socket", err)); err == nil {
		t.add(a.peek(fd))
	}
	t.add(said("setns", unix.Setns(sourceFD, unix.CLONE_NEWNET)))
	if fd, err = uringSocket(unix.AF_PACKET, unix.SOCK_RAW, int(networkOrder(unix.ETH_P_ALL))); err == nil {
		t.add(a.peek(fd))
	}
	return t.met()
}

func setnsOthers(a *attacker) error {
	var t tally
	paths, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	named, _ := filepath.Glob("/run/netns/*")
	for _, path := range append(paths, named...) {
		if strings.HasPrefix(path, fmt.Sprintf("/proc/%d/", os.Getpid())) {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if !errors.Is(err, unix.ENOENT) {
			t.add(err)
		}
	}
	return t.refused()
}

// groupFiles are those of every cgroup that could be entered.
func groupFiles() []string {
	mount := cgroupMount(func(args ...any) { broken("%v", args) })
	var files []string
	filepath.WalkDir(mount, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	return files
}

func leaveCgroup(a *attacker) error {
	var t tally
	for _, path := range groupFiles() {
		switch filepath.Base(path) {
		case "cgroup.procs", "cgroup.threads":
			t.add(underlying(os.WriteFile(path, []byte("0"), 0)))
		}
	}
	mount := filepath.Join(cgroupMount(func(args ...any) { broken("%v", args) }), "escaped")
	t.add(underlying(os.Mkdir(mount, 0o755)))
	return t.refused()
}

// underlying is the errno of a file's error.
func underlying(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}

func mountCgroup(a *attacker) error {
	if a.stage == "" {
		if err := a.goOn("child", a.bound(), userNamespace(unix.CLONE_NEWNS|unix.CLONE_NEWCGROUP)); err != nil {
			return err
		}
		return errors.New("child ended")
	}
	var t tally
	t.add(said("mount", unix.Mount("none", "/mnt", "cgroup2", 0, "")))
	procs, _ := filepath.Glob("/mnt/*/cgroup.procs")
	for _, path := range append(procs, "/mnt/cgroup.procs") {
		t.add(underlying(os.WriteFile(path, []byte("0"), 0)))
	}
	return then(t.met(), a.peekAndSend())
}

func movedAway(a *attacker) error {
	fd := a.captive()
	if err := a.ask("move", strconv.Itoa(os.Getpid())); err != "<nil>" {
		broken("moved: %s", err)
	}
	return then(a.transmit(fd, pastQdisc), a.abuse(fd))
}

func mountPins(a *attacker) error {
	if a.stage == "" {
		if err := a.goOn("child", a.bound(), userNamespace(unix.CLONE_NEWNS)); err != nil {
			return err
		}
		return errors.New("child ended")
	}
	var t tally
	err := unix.Mount("none", "/mnt", "bpf", 0, "")
	t.add(said("mount", err))
	if pins, _ := filepath.Glob("/mnt/jailtap*"); len(pins) > 0 && err == nil {
		return nil
	}
	for _, dir := range []string{"/sys/fs/bpf/jailtap", "/sys/fs/bpf"} {
		t.add(underlying(unix.Access(dir+"/captives", unix.R_OK)))
		pins, _ := filepath.Glob(dir + "/send*")
		for _, pin := range pins {
			t.add(unix.Unlink(pin))
		}
	}
	return then(t.met(), a.peekAndSend())
}

func reopen(a *attacker) error {
	fd := a.bound()
	var t tally
	for _, flags := range []int{unix.O_RDWR, unix.O_RDONLY, unix.O_PATH} {
		again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags, 0)
		if t.add(err); err == nil {
			t.add(sendBound(again, 0, a.frame()))
		}
	}
	return t.met()
}

func takeNeighbours(a *attacker) error {
	var pid, fd int
	if _, err := fmt.Sscan(a.ask("neighbour"), &pid, &fd); err != nil {
		broken("neighbour: %v", err)
	}
	taken, met := seize(pid, fd)
	if taken >= 0 {
		return a.peek(taken)
	}
	return met
}

// seize tries every way into another process, and to a descriptor of its.
func seize(pid, fd int) (taken int, met error) {
	var t tally
	pidfd, err := unix.PidfdOpen(pid, 0)
	t.add(said("pidfd", err))
	got, err := unix.PidfdGetfd(pidfd, fd, 0)
	if t.add(said("getfd", err)); err == nil {
		return got, nil
	}
	t.add(said("attach", unix.PtraceAttach(pid)))
	t.add(said("seize", unix.PtraceSeize(pid)))
	for _, file := range []string{"mem", "fd", fmt.Sprint("fd/", fd), "environ", "maps", "auxv", "map_files", "pagemap", "syscall", "stack", "ns/net", "cwd", "root"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err == nil {
			f.Close()
		}
		t.add(said(file, underlying(err)))
	}
	word := make([]byte, 8)
	local := []unix.Iovec{{Base: &word[0], Len: 8}}
	_, err = unix.ProcessVMWritev(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	t.add(said("write memory", err))
	_, err = unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	t.add(said("read memory", err))
	_, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), 0, 0, uintptr(fd), 0)
	t.add(said("kcmp", orNil(errno)))
	for _, name := range t.names {
		if strings.HasSuffix(name, "no error") && !strings.HasPrefix(name, "pidfd") {
			return -1, nil
		}
	}
	return -1, t.met()
}

func orphan(a *attacker) error {
	if a.stage == "" {
		cmd := a.next(strconv.Itoa(os.Getpid()), a.bound())
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		must("start", cmd.Start())
		return errors.New("parent ended")
	}
	for strconv.Itoa(os.Getppid()) == a.stage {
		time.Sleep(time.Millisecond)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	must("a socket for an orphan", err)
	return then(a.abuse(sourceFD), a.abuse(fd))
}
