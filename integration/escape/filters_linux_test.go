//go:build amd64 || arm64

package escape

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// everything is a filter that takes all there is.
var everything = []unix.SockFilter{{Code: 0x06, K: 0xffffffff}}

// filters are about the filter that holds the scope.
var filters = []attempt{
	{name: "attach a filter that takes everything", how: "SO_ATTACH_FILTER, ret #-1", in: both, control: true,
		do: changeAndLook(func(fd int) error { return attach(fd, everything) })},
	{name: "detach the filter", how: "SO_DETACH_FILTER", in: both, control: true,
		do: changeAndLook(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })},
	{name: "unlock, then replace", how: "SO_LOCK_FILTER 0, then attach", in: both,
		do: changeAndLook(func(fd int) error {
			err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0)
			return then(err, attach(fd, everything))
		})},
	{name: "attach an eBPF program", how: "SO_ATTACH_BPF with a program, and with every descriptor", in: both, do: attachEBPF},
	{name: "attach for SO_REUSEPORT", how: "SO_ATTACH_REUSEPORT_CBPF, _EBPF, SO_DETACH_REUSEPORT_BPF", in: both,
		do: changeAndLook(attachReuseport)},
	{name: "the largest filter", how: "4096 instructions, and 4097, and 65535", in: both, do: changeAndLook(attachLarge)},
	{name: "malformed filters", how: "empty, without memory, of unknown instructions, out of itself, of odd lengths", in: both,
		do: changeAndLook(attachMalformed)},
	{name: "filters that look elsewhere", how: "loads at negative offsets, of all metadata, shifts by 32, division by 0", in: both,
		do: changeAndLook(attachOdd)},
	{name: "more bytes than the frame has", how: "ret #0x7fffffff, then MSG_TRUNC and MSG_PEEK", in: both, do: moreBytes},
	{name: "detach by io_uring", how: "SOCKET_URING_OP_SETSOCKOPT, which the agent does not see", in: both, control: true, do: detachByUring},
	{name: "detach at another level", how: "SOL_SOCKET's options at all other levels", in: both, do: changeAndLook(detachElsewhere)},
}

func attach(fd int, insns []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]})
}

// changeAndLook changes a socket while frames come, and looks whether there are
// foreign ones among them.
func changeAndLook(change func(fd int) error) func(*attacker) error {
	return func(a *attacker) error {
		fd := a.bound()
		met := change(fd)
		return then(said("change", met), a.look(fd))
	}
}

func attachEBPF(a *attacker) error {
	var t tally
	fd := a.bound()
	if program, err := loadProgram(unix.BPF_PROG_TYPE_SOCKET_FILTER); err != nil {
		t.add(said("load", err))
	} else {
		t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program))
	}
	for i := range 64 {
		t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, i))
	}
	return then(t.met(), a.look(fd))
}

func attachReuseport(fd int) error {
	var t tally
	prog := &unix.SockFprog{Len: 1, Filter: &everything[0]}
	t.add(unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, prog))
	t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, 3))
	t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0))
	return t.met()
}

// chain is a program of n instructions that takes everything.
func chain(n int) []unix.SockFilter {
	insns := make([]unix.SockFilter, n)
	for i := range insns {
		insns[i] = unix.SockFilter{Code: 0x00, K: uint32(i)} // ld #i
	}
	insns[n-1] = everything[0]
	return insns
}

func attachLarge(fd int) error {
	var t tally
	for _, n := range []int{4095, 4096, 4097, 65535} {
		t.add(attach(fd, chain(n)))
	}
	return t.met()
}

func attachMalformed(fd int) error {
	var t tally
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must("mmap", err)
	atEdge := (*unix.SockFilter)(unsafe.Pointer(&page[len(page)-8]))
	*atEdge = everything[0]
	for _, p := range []unix.SockFprog{{Len: 0, Filter: &everything[0]}, {Len: 1}, {Len: 65535, Filter: atEdge}, {Len: 3, Filter: atEdge}} {
		t.add(unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &p))
	}
	prog := &unix.SockFprog{Len: 1, Filter: atEdge}
	for _, length := range []uintptr{0, 1, 8, 15, 17, 4096, 1 << 31, 1<<32 | 8} {
		t.add(setsockopt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, unsafe.Pointer(prog), length))
	}
	for code := range uint16(512) {
		t.add(attach(fd, []unix.SockFilter{{Code: code, Jt: 255, Jf: 255, K: 0xfffffff0}, everything[0]}))
	}
	return t.met()
}

// attachOdd attaches one after the other, each of which takes everything if it
// may.
func attachOdd(fd int) error {
	var t tally
	for _, in := range []unix.SockFilter{
		{Code: 0x20, K: 0xffe00000},            // ld [SKF_LL_OFF]
		{Code: 0x20, K: 0xfff00000},            // ld [SKF_NET_OFF]
		{Code: 0x20, K: 0xfff00000 - 20},       // before it
		{Code: 0x20, K: 0x7fffffff},            // ld [far behind]
		{Code: 0x34, K: 0}, {Code: 0x94, K: 0}, // div #0, mod #0
		{Code: 0x64, K: 32}, {Code: 0x74, K: 255}, // lsh, rsh
		{Code: 0x60, K: 16}, {Code: 0x03, K: 99}, // ld M[16], stx M[99]
		{Code: 0x3c}, {Code: 0x9c}, // div x, mod x: 0
	} {
		t.add(attach(fd, []unix.SockFilter{in, everything[0]}))
	}
	for ancillary := uint32(0); ancillary <= 64; ancillary += 4 {
		t.add(attach(fd, []unix.SockFilter{{Code: 0x20, K: 0xfffff000 + ancillary}, everything[0]}))
	}
	return t.met()
}

func moreBytes(a *attacker) error {
	fd := a.bound()
	met := attach(fd, []unix.SockFilter{{Code: 0x06, K: 0x7fffffff}})
	buf := make([]byte, 1<<17)
	for range enough {
		n, _, _ := unix.Recvfrom(fd, buf, unix.MSG_TRUNC|unix.MSG_PEEK)
		a.leaks(buf[:max(n, 0)])
	}
	a.leaks(buf)
	return then(said("attach", met), a.look(fd))
}

func detachByUring(a *attacker) error {
	fd, zero := a.bound(), new(int32)
	prog := &unix.SockFprog{Len: 1, Filter: &everything[0]}
	met := uringSetsockopt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, zero)
	met = fmt.Errorf("%w, %w", said("unlock", met), said("detach", uringSetsockopt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, zero)))
	met = fmt.Errorf("%w, %w", met, said("attach", uringSetsockopt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)))
	return then(met, a.look(fd))
}

func detachElsewhere(fd int) error {
	var t tally
	for level := range 300 {
		if level != unix.SOL_SOCKET {
			t.add(unix.SetsockoptInt(fd, level, unix.SO_DETACH_FILTER, 0))
			t.add(unix.SetsockoptSockFprog(fd, level, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &everything[0]}))
		}
	}
	return t.met()
}
