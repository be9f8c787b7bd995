//go:build amd64 || arm64

package agent

import (
	"encoding/binary"
	"testing"

	xbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// verdict runs the filter on a call. The VM loads big-endian words, where the
// kernel's are its own; half an argument is a word all the same.
func verdict(t *testing.T, root bool, arch, nr uint32, args ...uint32) uint32 {
	t.Helper()
	data := make([]byte, 64) // struct seccomp_data
	binary.BigEndian.PutUint32(data[offNr:], nr)
	binary.BigEndian.PutUint32(data[offArch:], arch)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], arg)
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], 0xdead) // which the kernel ignores
	}
	vm, err := xbpf.NewVM(filter(root))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

func TestTheFilterAsksForAsLittleAsCanBe(t *testing.T) {
	const allow, notify, enosys, zero = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_USER_NOTIF,
		unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS), unix.SECCOMP_RET_ERRNO
	const sock, opt = unix.SYS_SOCKET, unix.SYS_SETSOCKOPT
	for name, c := range map[string]struct {
		arch, nr uint32
		args     []uint32
		user     uint32 // what becomes of it
		root     uint32 // as user 0
	}{
		"a packet socket":           {nativeArch, sock, []uint32{unix.AF_PACKET, unix.SOCK_RAW}, notify, notify},
		"SOCK_PACKET":               {nativeArch, sock, []uint32{unix.AF_PACKET, unix.SOCK_PACKET}, notify, notify},
		"another socket":            {nativeArch, sock, []uint32{unix.AF_INET, unix.SOCK_RAW}, allow, allow},
		"attach":                    {nativeArch, opt, []uint32{3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}, notify, notify},
		"attach eBPF":               {nativeArch, opt, []uint32{3, unix.SOL_SOCKET, unix.SO_ATTACH_BPF}, notify, notify},
		"detach":                    {nativeArch, opt, []uint32{3, unix.SOL_SOCKET, unix.SO_DETACH_FILTER}, notify, notify},
		"lock":                      {nativeArch, opt, []uint32{3, unix.SOL_SOCKET, unix.SO_LOCK_FILTER}, notify, notify},
		"another option":            {nativeArch, opt, []uint32{3, unix.SOL_SOCKET, unix.SO_REUSEADDR}, allow, allow},
		"another level":             {nativeArch, opt, []uint32{3, unix.SOL_PACKET, unix.SO_ATTACH_FILTER}, allow, allow},
		"another call":              {nativeArch, unix.SYS_GETPID, nil, allow, allow},
		"x32":                       {nativeArch, x32Bit | sock, []uint32{unix.AF_PACKET}, enosys, enosys},
		"another architecture":      {unix.AUDIT_ARCH_I386, unix.SYS_GETPID, nil, enosys, enosys},
		"a number beyond all calls": {nativeArch, 0xffffffff, nil, enosys, enosys},
		"giving up groups":          {nativeArch, unix.SYS_SETGROUPS, nil, allow, zero},
		"changing an owner":         {nativeArch, unix.SYS_FCHOWN, nil, allow, zero},
	} {
		if v := verdict(t, false, c.arch, c.nr, c.args...); v != c.user {
			t.Errorf("%s: %#x, want %#x", name, v, c.user)
		}
		if v := verdict(t, true, c.arch, c.nr, c.args...); v != c.root {
			t.Errorf("%s as user 0: %#x, want %#x", name, v, c.root)
		}
	}
}

func TestAPacketSocketIsAskedForAsTheKernelWantsIt(t *testing.T) {
	all := uint32(networkOrder(unix.ETH_P_ALL))
	for _, c := range []struct {
		typ, protocol uint32
		want          request
		errno         unix.Errno
	}{
		{unix.SOCK_RAW, 0, request{}, 0},
		{unix.SOCK_DGRAM, all, request{datagram: true, protocol: uint16(all)}, 0},
		{unix.SOCK_RAW | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC, 0, request{nonblock: true, cloexec: true}, 0},
		{unix.SOCK_PACKET, all, request{}, unix.EPROTONOSUPPORT},
		{unix.SOCK_STREAM, 0, request{}, unix.ESOCKTNOSUPPORT},
		{unix.SOCK_RAW | 0x10, 0, request{}, unix.EINVAL},
	} {
		got, errno := parseRequest(c.typ, c.protocol)
		if errno != c.errno || errno == 0 && got != c.want {
			t.Errorf("type %#x: %+v, %v", c.typ, got, errno)
		}
	}
}
