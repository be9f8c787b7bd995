//go:build amd64 || arm64

package jail

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A systemCall is what the filter looks at.
type systemCall struct {
	arch, number uint32
	args         [2]uint64
}

// verdict is what the filter answers. The machine of x/net/bpf has big-endian
// words, and so has what it is given.
func (c systemCall) verdict(t *testing.T, calls ...Call) uint32 {
	t.Helper()
	raw, err := filter(calls)
	if err != nil {
		t.Fatal(err)
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter does not disassemble")
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], c.number)
	binary.BigEndian.PutUint32(data[offArch:], c.arch)
	for i, off := range []int{offArg0, offArg1} {
		binary.BigEndian.PutUint32(data[off:], uint32(c.args[i]))
		binary.BigEndian.PutUint32(data[off+4:], uint32(c.args[i]>>32))
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func TestTheFilterAnswersAsItShould(t *testing.T) {
	const nosys, perm, family = retErrno | uint32(unix.ENOSYS), retErrno | uint32(unix.EPERM), retErrno | uint32(unix.EAFNOSUPPORT)
	for what, c := range map[string]struct {
		call systemCall
		want uint32
	}{
		"read":                         {systemCall{number: unix.SYS_READ}, retAllow},
		"fork":                         {systemCall{number: unix.SYS_CLONE, args: [2]uint64{uint64(unix.SIGCHLD)}}, retAllow},
		"a user namespace":             {systemCall{number: unix.SYS_CLONE, args: [2]uint64{unix.CLONE_NEWUSER}}, perm},
		"one with high bits":           {systemCall{number: unix.SYS_CLONE, args: [2]uint64{1<<40 | unix.CLONE_NEWUSER}}, perm},
		"clone3":                       {systemCall{number: unix.SYS_CLONE3}, nosys},
		"io_uring":                     {systemCall{number: unix.SYS_IO_URING_SETUP}, nosys},
		"mount":                        {systemCall{number: unix.SYS_MOUNT}, perm},
		"a call of the future":         {systemCall{number: newest + 1}, nosys},
		"x32":                          {systemCall{number: 0x40000000 | unix.SYS_READ}, nosys},
		"another architecture":         {systemCall{arch: unix.AUDIT_ARCH_I386, number: unix.SYS_READ}, nosys},
		"a terminal's size":            {systemCall{number: unix.SYS_IOCTL, args: [2]uint64{0, unix.TIOCGWINSZ}}, retAllow},
		"typing on a terminal":         {systemCall{number: unix.SYS_IOCTL, args: [2]uint64{0, unix.TIOCSTI}}, perm},
		"the same with high bits":      {systemCall{number: unix.SYS_IOCTL, args: [2]uint64{0, 1<<32 | unix.TIOCSTI}}, perm},
		"an IPv6 socket":               {systemCall{number: unix.SYS_SOCKET, args: [2]uint64{unix.AF_INET6}}, retAllow},
		"a socket of VMs":              {systemCall{number: unix.SYS_SOCKET, args: [2]uint64{unix.AF_VSOCK}}, family},
		"a socket of the cryptography": {systemCall{number: unix.SYS_SOCKET, args: [2]uint64{unix.AF_ALG}}, family},
	} {
		if c.call.arch == 0 {
			c.call.arch = auditArch
		}
		if got := c.call.verdict(t); got != c.want {
			t.Errorf("%s: %#x, want %#x", what, got, c.want)
		}
	}
}

func TestAnAgentIsAskedAboutItsCallsAndNoOthers(t *testing.T) {
	calls := []Call{
		{unix.SYS_SOCKET, []Arg{{0, unix.AF_PACKET}}},
		{unix.SYS_SETSOCKOPT, []Arg{{1, unix.SOL_SOCKET}, {0, 7}}},
	}
	for what, c := range map[string]struct {
		call systemCall
		want uint32
	}{
		"a packet socket":            {systemCall{auditArch, unix.SYS_SOCKET, [2]uint64{unix.AF_PACKET}}, retAsk},
		"one with high bits":         {systemCall{auditArch, unix.SYS_SOCKET, [2]uint64{1<<32 | unix.AF_PACKET}}, retAsk},
		"another socket":             {systemCall{auditArch, unix.SYS_SOCKET, [2]uint64{unix.AF_INET}}, retAllow},
		"a socket that nobody has":   {systemCall{auditArch, unix.SYS_SOCKET, [2]uint64{unix.AF_ALG}}, retErrno | uint32(unix.EAFNOSUPPORT)},
		"both arguments":             {systemCall{auditArch, unix.SYS_SETSOCKOPT, [2]uint64{7, unix.SOL_SOCKET}}, retAsk},
		"the first only":             {systemCall{auditArch, unix.SYS_SETSOCKOPT, [2]uint64{8, unix.SOL_SOCKET}}, retAllow},
		"the second only":            {systemCall{auditArch, unix.SYS_SETSOCKOPT, [2]uint64{7, 0}}, retAllow},
		"what comes after the calls": {systemCall{auditArch, unix.SYS_IOCTL, [2]uint64{0, unix.TIOCSTI}}, retErrno | uint32(unix.EPERM)},
		"of another architecture":    {systemCall{unix.AUDIT_ARCH_I386, unix.SYS_SOCKET, [2]uint64{unix.AF_PACKET}}, retErrno | uint32(unix.ENOSYS)},
	} {
		if got := c.call.verdict(t, calls...); got != c.want {
			t.Errorf("%s: %#x, want %#x", what, got, c.want)
		}
	}
}
