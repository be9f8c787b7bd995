//go:build amd64 || arm64

package agent

import (
	"encoding/binary"

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

// filter is the seccomp filter that a command runs under. If root, the command
// runs as user 0.
func filter(root bool) code {
	notify, allow := code{ret(unix.SECCOMP_RET_USER_NOTIF)}, code{ret(unix.SECCOMP_RET_ALLOW)}

	f := join(
		code{load(offArch)}, unless(nativeArch, fail(unix.ENOSYS)),
		code{load(offNr), xbpf.JumpIf{Cond: xbpf.JumpBitsNotSet, Val: x32Bit, SkipTrue: 1}}, fail(unix.ENOSYS),

		when(unix.SYS_SOCKET, join(
			code{loadArg(0)}, when(unix.AF_PACKET, notify), allow)),

		when(unix.SYS_SETSOCKOPT, join(
			code{loadArg(1)}, unless(unix.SOL_SOCKET, allow),
			code{loadArg(2)},
			when(unix.SO_ATTACH_FILTER, notify),
			when(unix.SO_DETACH_FILTER, notify), // SO_DETACH_BPF is the same
			when(unix.SO_LOCK_FILTER, notify),
			when(unix.SO_ATTACH_BPF, notify),
			allow)),
	)
	if root {
		for _, nr := range ownerCalls {
			f = append(f, when(nr, fail(0))...)
		}
	}
	return append(f, allow...)
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

// loadArg loads the lower half of an argument, of which the kernel takes no
// more where it wants an int. Both architectures have it first.
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
