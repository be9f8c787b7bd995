//go:build amd64 || arm64

package agent

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// memory reads a caller's memory: all that is asked for, or nothing.
type memory func(addr uint64, into []byte) unix.Errno

// callersMemory reads, and only then looks whether the caller still waits: if
// so it was its memory, not that of another thread that got its number.
func (s *server) callersMemory(n *notification) memory {
	return func(addr uint64, into []byte) unix.Errno {
		local := []unix.Iovec{{Base: &into[0], Len: uint64(len(into))}}
		remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: len(into)}}
		got, err := unix.ProcessVMReadv(int(n.tid), local, remote, 0)
		if err == unix.EPERM {
			s.log.Error("a caller's memory may not be read: it needs CAP_SYS_PTRACE", "tid", n.tid)
		}
		if err != nil || got != len(into) || !s.valid(n) {
			return unix.EFAULT
		}
		return 0
	}
}

// readInt reads the value of an option that is an int, as sk_setsockopt does.
func readInt(read memory, addr uint64, length int32) (int32, unix.Errno) {
	var value [4]byte
	if length < int32(len(value)) {
		return 0, unix.EINVAL
	}
	errno := read(addr, value[:])
	return int32(binary.NativeEndian.Uint32(value[:])), errno
}

// readProgram reads a struct sock_fprog and the instructions that it points to
// (linux/filter.h), each once, as copy_bpf_fprog_from_user and __get_filter
// (net/core/filter.c) do. What the caller writes there later is of no account.
func readProgram(read memory, addr uint64, length int32) (bpf.Program, unix.Errno) {
	const fprogLen, pointerOff, insnLen = 16, 8, 8 // bytes, where pointers have 64 bits
	if length != fprogLen {
		return nil, unix.EINVAL
	}
	var fprog [fprogLen]byte
	if errno := read(addr, fprog[:]); errno != 0 {
		return nil, errno
	}
	count, pointer := binary.NativeEndian.Uint16(fprog[:]), binary.NativeEndian.Uint64(fprog[pointerOff:])
	if count == 0 || int(count) > bpf.Linux.MaxInstructions() || pointer == 0 {
		return nil, unix.EINVAL
	}
	insns := make([]byte, int(count)*insnLen)
	if errno := read(pointer, insns); errno != 0 {
		return nil, errno
	}
	p := make(bpf.Program, count)
	for i := range p {
		in := insns[i*insnLen:]
		p[i].Op, p[i].Jt, p[i].Jf, p[i].K = binary.NativeEndian.Uint16(in), in[2], in[3], binary.NativeEndian.Uint32(in[4:])
	}
	if p.Validate(bpf.Linux) != nil {
		return nil, unix.EINVAL
	}
	return p, 0
}
