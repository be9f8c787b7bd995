//go:build amd64 || arm64

package escape

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// againstAgent are attempts to harm who keeps the sockets captive, and to go on
// when it has gone.
var againstAgent = []attempt{
	{name: "into the agent", how: "pidfd_getfd, ptrace, process_vm_writev, /proc/AGENT/mem, fd, maps", in: []setting{run}, do: intoAgent},
	{name: "signals to the agent", how: "kill(2), tgkill(2), pidfd_send_signal(2) with all signals", in: []setting{run}, do: signalAgent},
	{name: "limits of the agent", how: "prlimit(2), setpriority(2), sched_setscheduler(2), ioprio_set(2), oom_score_adj", in: []setting{run}, do: limitAgent},
	{name: "the agent's cgroup", how: "freeze it, kill it, enter it, move the agent out, remove it", in: both, do: harmCgroup},
	{name: "lock the agent's cgroup", how: "flock(2) on the directory that Wardens lock; another command must still run", in: both, do: lockCgroup},
	{name: "the pins", how: "list, remove, rename, lock; put others in their place", in: both, do: harmPins},
	{name: "the directory of pins made beforehand", how: "by the attacker, who then owns what is pinned there", in: []setting{held}, do: ownPins},
	{name: "the seccomp listener", how: "ask for it, and answer one's own calls", in: []setting{run}, do: ownAnswers},
	{name: "the operator's terminal", how: "TIOCSTI: type commands into the shell that has started jailtap", in: []setting{run}, terminal: true,
		do: typeAhead, outside: typed},
	{name: "kill the agent: captives", how: "SIGKILL by root; sockets stay scoped and mute", in: []setting{run}, do: killAgent},
	{name: "kill the agent: new captives", how: "SIGKILL by root; socket(2) and setsockopt(2) after that", in: []setting{run}, do: killAgentAndOpen},
	{name: "kill the agent: the next one comes and goes", how: "its end must not take the guards of sockets that are left", in: []setting{run}, do: killAgentAndRun},
	{name: "kill the agent: a new interface", how: "nobody watches any more for interfaces to guard", in: []setting{run}, do: killAgentAndInterface},
	{name: "more captives than are allowed", how: "open until it is refused; another command must still get one", in: []setting{run}, do: openMany},
	{name: "processes that open captives", how: "40 children with 16 sockets each", in: []setting{run}, do: openInChildren},
	{name: "guards of a neighbour", how: "another command ends while its neighbour's captives are held", in: []setting{held}, do: neighbourEnds},
}

func (a *attacker) agent() int { return a.askNumber("agent") }

func intoAgent(a *attacker) error {
	agent := a.agent()
	var met error
	for fd := range 24 {
		var taken int
		if taken, met = seize(agent, fd); taken >= 0 || met == nil {
			return nil
		}
	}
	return met
}

func signalAgent(a *attacker) error {
	agent := a.agent()
	pidfd, err := unix.PidfdOpen(agent, 0)
	must("pidfd", err)
	var t tally
	for sig := unix.Signal(0); sig <= 64; sig++ {
		if sig == unix.SIGCONT { // to processes of the same session everybody may, and it does nothing
			continue
		}
		t.add(unix.Kill(agent, sig))
		t.add(unix.Tgkill(agent, agent, sig))
		t.add(unix.PidfdSendSignal(pidfd, sig, nil, 0))
	}
	return t.refused()
}

func limitAgent(a *attacker) error {
	agent := a.agent()
	var t tally
	for resource := range 16 {
		t.add(unix.Prlimit(agent, resource, &unix.Rlimit{}, nil))
	}
	t.add(unix.Setpriority(unix.PRIO_PROCESS, agent, 19))
	t.add(unix.SchedSetaffinity(agent, &unix.CPUSet{1}))
	param := int32(0)
	const idle, wholeProcess = 5, 1
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(agent), idle, address32(&param))
	t.add(orNil(errno))
	_, _, errno = unix.Syscall(unix.SYS_IOPRIO_SET, wholeProcess, uintptr(agent), 3<<13)
	t.add(orNil(errno))
	for _, file := range []string{"oom_score_adj", "oom_adj", "comm", "clear_refs", "coredump_filter", "timerslack_ns", "setgroups", "sched"} {
		t.add(underlying(os.WriteFile(fmt.Sprintf("/proc/%d/%s", agent, file), []byte("0"), 0)))
	}
	return t.refused()
}

func address32(p *int32) uintptr { return uintptr(address(p)) }

// wardensCgroup is a directory of the Wardens.
func wardensCgroups() []string {
	mount := cgroupMount(func(args ...any) { broken("%v", args) })
	dirs, _ := filepath.Glob(filepath.Join(mount, "jailtap*"))
	if len(dirs) == 0 {
		broken("no Warden has a cgroup")
	}
	return dirs
}

func harmCgroup(a *attacker) error {
	var t tally
	for _, dir := range wardensCgroups() {
		for _, file := range []string{"cgroup.procs", "cgroup.threads", "cgroup.freeze", "cgroup.kill", "cgroup.type", "cgroup.subtree_control", "cgroup.max.descendants"} {
			t.add(underlying(os.WriteFile(filepath.Join(dir, file), []byte("1"), 0)))
		}
		t.add(underlying(unix.Rmdir(dir)))
		t.add(underlying(unix.Rename(dir, dir+"-away")))
		t.add(underlying(unix.Mkdir(dir+"/below", 0o755)))
	}
	return t.refused()
}

func lockCgroup(a *attacker) error {
	a.captive()
	var t tally
	for _, dir := range wardensCgroups() {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if t.add(said("open", err)); err == nil {
			t.add(said("lock", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)))
		}
	}
	switch answer := a.ask("run"); {
	case strings.HasPrefix(answer, "signal: killed"): // it waits for the lock, for ever
		return nil
	case answer != "ok":
		broken("another command: %s", answer)
	}
	return fmt.Errorf("%w; another command runs", t.met())
}

func harmPins(a *attacker) error {
	a.captive()
	var t tally
	if _, err := os.ReadDir("/sys/fs/bpf"); errors.Is(err, unix.EACCES) { // it may be root's alone (mode=700)
		t.add(errors.Unwrap(err))
		t.add(unix.Access("/sys/fs/bpf/jailtap", unix.F_OK))
		return t.refused()
	}
	dirs, _ := filepath.Glob("/sys/fs/bpf/jailtap*")
	if len(dirs) == 0 {
		broken("no pins")
	}
	for _, dir := range dirs {
		t.add(readable(dir))
		t.add(unix.Rename(dir, dir+"-away"))
		t.add(unix.Rmdir(dir))
		t.add(unix.Chmod(dir, 0o777))
		fd, err := unix.Open(dir, unix.O_RDONLY, 0)
		if t.add(err); err == nil {
			t.add(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
		}
		for _, pin := range []string{"captives", "options-1", "send-1-1"} {
			t.add(unix.Unlink(filepath.Join(dir, pin)))
		}
	}
	return t.refused()
}

// ownPins makes the directory, if it may, before a Warden comes that would use
// it.
func ownPins(a *attacker) error {
	dir := fmt.Sprintf("/sys/fs/bpf/jailtap-escape-%d-mine", os.Getpid())
	met := said("mkdir", unix.Mkdir(dir, 0o700))
	defer unix.Rmdir(dir)
	answer := a.ask("warden", dir)
	pins, err := os.ReadDir(dir)
	if err != nil || len(pins) == 0 {
		return fmt.Errorf("%w; the Warden: %s", met, answer)
	}
	for _, pin := range pins {
		if err := os.Remove(filepath.Join(dir, pin.Name())); err == nil {
			fmt.Fprintln(os.Stderr, "removed", pin.Name())
		}
	}
	return nil
}

// ownAnswers looks for the listener where it might be left.
func ownAnswers(a *attacker) error {
	var t tally
	for fd := range 64 {
		n := [80]byte{}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(address(&n[0])))
		t.add(orNil(errno))
	}
	_, _, errno := unix.Syscall(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(a.agent()), 0)
	t.add(orNil(errno))
	return t.refused()
}

// typedWord is what the attacker types.
const typedWord = "escape\n"

func typeAhead(a *attacker) error {
	tty, err := unix.Open("/dev/tty", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	var t tally
	for _, c := range []byte(typedWord) {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(tty), unix.TIOCSTI, uintptr(address(&c)))
		t.add(orNil(errno))
	}
	return t.met()
}

func typed(_ *world, p *prey) string {
	got := make([]byte, 64)
	tty := int(p.tty.Fd()) // Fd makes it block
	unix.SetNonblock(tty, true)
	n, _ := unix.Read(tty, got)
	if strings.Contains(string(got[:max(n, 0)]), strings.TrimSpace(typedWord)) {
		return fmt.Sprintf("%q was typed at the operator's terminal", got[:n])
	}
	return ""
}

func killAgent(a *attacker) error {
	fd := a.bound()
	a.ask("kill agent")
	return then(a.transmit(fd, pastQdisc), a.abuse(fd))
}

func killAgentAndOpen(a *attacker) error {
	fd := a.bound()
	a.ask("kill agent")
	_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; %w; %w", said("socket", err), said("attach", attach(fd, everything)), a.abuse(fd))
}

func killAgentAndRun(a *attacker) error {
	fd := a.bound()
	a.ask("kill agent")
	for range 2 {
		if answer := a.ask("run"); answer != "ok" {
			broken("another command: %s", answer)
		}
	}
	return then(a.transmit(fd, pastQdisc), a.abuse(fd))
}

func killAgentAndInterface(a *attacker) error {
	fd := a.bound()
	a.ask("kill agent")
	var t tally
	for range 2 {
		t.add(a.transmitOn(fd, a.ask("interface", "later"), sendBound))
	}
	return then(t.met(), a.abuse(fd))
}

func openMany(a *attacker) error {
	var t tally
	for range 300 {
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		t.add(err)
	}
	if answer := a.ask("run"); answer != "ok" {
		broken("another command: %s", answer)
	}
	if t.counts["ENOBUFS"] == 0 {
		return nil
	}
	return t.met()
}

func openInChildren(a *attacker) error {
	if a.stage != "" {
		for range 16 {
			unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		}
		time.Sleep(100 * time.Millisecond)
		return errors.New("opened")
	}
	fd := a.bound()
	var children sync.WaitGroup
	for range 20 {
		children.Go(func() { a.next("child", fd).Run() })
	}
	children.Wait()
	return a.abuse(fd)
}

// neighbourEnds keeps a socket while commands beside it, with Wardens of their
// own, end.
func neighbourEnds(a *attacker) error {
	fd := a.bound()
	for range 2 {
		if answer := a.ask("run"); answer != "ok" {
			broken("another command: %s", answer)
		}
	}
	return then(a.transmit(fd, pastQdisc), a.abuse(fd))
}
