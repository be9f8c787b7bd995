//go:build amd64 || arm64

package escape

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls are other ways into the kernel than those that are looked at.
var calls = append([]attempt{
	{name: "all of io_uring in one", how: "socket, setsockopt, bind, send in a ring", in: both, control: true, do: uringOnly},
	{name: "a seccomp filter of one's own", how: "a second listener; SECCOMP_RET_LOG; SECCOMP_RET_ALLOW", in: []setting{run}, do: ownSeccomp},
	{name: "capabilities back", how: "capset(2), prctl(2), setuid(2), securebits, keyrings of root", in: []setting{run}, do: regain},
}, calls32...)

func uringOnly(a *attacker) error {
	fd, err := uringSocket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	var t tally
	if t.add(said("socket", err)); err != nil {
		fd = a.captive()
	}
	one := int32(1)
	t.add(said("option", uringSetsockopt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, &one)))
	t.add(said("bind", uringBind(fd, index("eth0"))))
	t.add(said("send", uringWay(opSend)(fd, 0, a.frame())))
	return then(t.met(), a.look(fd))
}

// seccompFilter installs a filter that returns one verdict for everything.
func seccompFilter(verdict uint32, flags uintptr) error {
	prog := &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: 0x06, K: verdict}}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(prog)))
	return orNil(errno)
}

func ownSeccomp(a *attacker) error {
	runtime.LockOSThread()
	var t tally
	t.add(said("listener", seccompFilter(unix.SECCOMP_RET_ALLOW, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)))
	t.add(said("allow", seccompFilter(unix.SECCOMP_RET_ALLOW, 0)))
	t.add(said("log", seccompFilter(unix.SECCOMP_RET_LOG, 0)))
	return then(t.met(), a.abuse(a.captive()))
}

func regain(a *attacker) error {
	var t tally
	all := [2]unix.CapUserData{{Effective: 1 << 13, Permitted: 1 << 13}, {}}
	t.add(unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &all[0]))
	t.add(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_RAW, 0, 0))
	t.add(unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0))
	t.add(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0))
	for _, nr := range []uintptr{unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETFSUID} {
		_, _, errno := unix.RawSyscall(nr, 0, 0, 0)
		t.add(orNil(errno))
	}
	if os.Geteuid() == 0 {
		return nil
	}
	fd, err := uringSocket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if t.add(said("socket", err)); err == nil {
		return a.abuse(fd)
	}
	return t.met()
}
