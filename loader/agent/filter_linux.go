//go:build amd64 || arm64

package agent

import (
	"encoding/binary"
	"slices"

	xbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, in bytes (linux/seccomp.h).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16 // six of 8 bytes
)

type code []xbpf.Instruction

// A Rule is about calls that the agent is told of: those of one number of which
// all of Args hold.
type Rule struct {
	Name   string // of the system call, as libseccomp has it
	Number uint32
	Args   []Arg
}

// An Arg holds if the lower half of an argument has a value. The kernel takes no
// more of it, since it wants an int.
type Arg struct {
	Index uint // from 0
	Value uint32
}

// Rules are those that Serve knows an answer for.
func Rules() []Rule {
	rules := []Rule{{"socket", unix.SYS_SOCKET, []Arg{{0, unix.AF_PACKET}}}}
	for _, option := range []uint32{
		unix.SO_ATTACH_FILTER,
		unix.SO_DETACH_FILTER, // SO_DETACH_BPF is the same
		unix.SO_LOCK_FILTER,
		unix.SO_ATTACH_BPF,
	} {
		rules = append(rules, Rule{"setsockopt", unix.SYS_SETSOCKOPT, []Arg{{1, unix.SOL_SOCKET}, {2, option}}})
	}
	return rules
}

// code asks whether a call is what the rule is about, and ends it so if it is.
func (r Rule) code() code {
	c := code{ret(unix.SECCOMP_RET_USER_NOTIF)}
	for _, arg := range slices.Backward(r.Args) {
		c = append(code{loadArg(uint32(arg.Index))}, when(arg.Value, c)...)
	}
	return append(code{load(offNr)}, when(r.Number, c)...)
}

// filter is the seccomp filter that a command runs under. If root, the command
// runs as user 0.
func filter(root bool) code {
	f := join(
		code{load(offArch)}, unless(nativeArch, fail(unix.ENOSYS)),
		code{load(offNr), xbpf.JumpIf{Cond: xbpf.JumpBitsNotSet, Val: x32Bit, SkipTrue: 1}}, fail(unix.ENOSYS))
	for _, r := range Rules() {
		f = append(f, r.code()...)
	}
	for _, request := range []uint32{unix.TIOCSTI, unix.TIOCLINUX} { // type into the operator's terminal
		c := append(code{loadArg(1)}, when(request, fail(unix.EPERM))...)
		f = append(f, append(code{load(offNr)}, when(unix.SYS_IOCTL, c)...)...)
	}
	if root {
		f = append(f, load(offNr))
		for _, nr := range ownerCalls {
			f = append(f, when(nr, fail(0))...)
		}
	}
	return append(f, ret(unix.SECCOMP_RET_ALLOW))
}

func join(parts ...code) (all code) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// when runs body, which ends with a ret, if what was loaded is value.
func when(value uint32, body code) code {
	return append(code{xbpf.JumpIf{Cond: xbpf.JumpNotEqual, Val: value, SkipTrue: uint8(len(body))}}, body...)
}

// unless runs body, which ends with a ret, if what was loaded is not value.
func unless(value uint32, body code) code {
	return append(code{xbpf.JumpIf{Cond: xbpf.JumpEqual, Val: value, SkipTrue: uint8(len(body))}}, body...)
}

func ret(verdict uint32) xbpf.Instruction { return xbpf.RetConstant{Val: verdict} }

// fail ends a call with an error; 0 is success.
func fail(err unix.Errno) code { return code{ret(unix.SECCOMP_RET_ERRNO | uint32(err))} }

func load(off uint32) xbpf.Instruction { return xbpf.LoadAbsolute{Off: off, Size: 4} }

// loadArg loads the lower half of an argument. Both architectures have it first.
func loadArg(n uint32) xbpf.Instruction { return load(offArgs + 8*n) }

// kernelForm is the filter as seccomp(2) takes it.
func (c code) kernelForm() ([]unix.SockFilter, error) {
	raw, err := xbpf.Assemble(c)
	if err != nil {
		return nil, err
	}
	insns := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		insns[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return insns, nil
}

// networkOrder is v with its bytes in the order that htons(3) gives.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
