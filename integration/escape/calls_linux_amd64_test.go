package escape

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// Numbers of the i386 table (asm/unistd_32.h), and of socketcall's calls
// (linux/net.h).
const (
	socketcall32 = 102
	socket32     = 359
	sendto32     = 369
	setsockopt32 = 366
	uringSetup32 = 425

	callSocket     = 1
	callSendto     = 11
	callSetsockopt = 14
)

// calls32 go to the kernel by the door for 32-bit programs, where Linux runs
// no cgroup/setsockopt program.
var calls32 = []attempt{
	{name: "change a call behind the filter", how: "PTRACE_SYSCALL makes getppid a socket(2)", in: []setting{run}, do: rewriteCall},
	{name: "int 0x80: open", needs: testutil.HasI386Calls, how: "socket, socketcall and io_uring_setup of i386", in: both, do: open32},
	{name: "x32: open and set", how: "calls with __X32_SYSCALL_BIT", in: both, control: false, do: x32},
	in32("int 0x80: past the queueing discipline", "PACKET_QDISC_BYPASS, then send", func(a *attacker, fd int) error {
		return then(set32(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1), a.transmit(fd, sendBound))
	}),
	in32("int 0x80: past the queueing discipline on a new interface", "PACKET_QDISC_BYPASS, then send while interfaces are made", func(a *attacker, fd int) error {
		met := set32(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
		for range 4 {
			ifname := a.ask("interface", "later")
			met = then(met, a.transmitOn(fd, ifname, sendBound))
		}
		return met
	}),
	in32("socketcall: past the queueing discipline", "the same by the older call, and sendto by it", func(a *attacker, fd int) error {
		a.bind(fd, "eth0")
		met := call32(callSetsockopt, int32(fd), unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, low([]byte{1, 0, 0, 0}), 4)
		frame := a.frame()
		return then(said("option", met), call32(callSendto, int32(fd), low(frame), int32(len(frame)), 0, 0, 0))
	}),
	in32("int 0x80: a send ring", "PACKET_TX_RING", func(a *attacker, fd int) error {
		const page = 4096
		met := said("ring", set32(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, page, 1, page, 1))
		a.bind(fd, "eth0")
		return then(met, fillTXRing(fd, page, a.frame()))
	}),
	in32("int 0x80: a header of virtio", "PACKET_VNET_HDR, then send", func(a *attacker, fd int) error {
		met := set32(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
		return then(met, a.transmit(fd, func(fd, ifindex int, frame []byte) error {
			return sendBound(fd, ifindex, append(make([]byte, 10), frame...))
		}))
	}),
	opened(in32("int 0x80: the monitor's group", "PACKET_FANOUT; a socket that is not bound for good can", func(a *attacker, fd int) error {
		a.bind(fd, "eth0")
		met := set32(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, fanoutID|unix.PACKET_FANOUT_HASH<<16)
		stay()
		return then(said("join", met), a.peek(fd))
	}), held, passed),
	in32("int 0x80: no mark", "SO_MARK and SO_PRIORITY 0, then send", func(a *attacker, fd int) error {
		met := said("mark", set32(fd, unix.SOL_SOCKET, unix.SO_MARK, 0))
		return then(met, a.transmit(fd, sendBound))
	}),
	{name: "int 0x80: promiscuous", needs: testutil.HasI386Calls, how: "PACKET_ADD_MEMBERSHIP", in: []setting{run, settled, held, passed}, outside: promiscuous, do: func(a *attacker) error {
		fd := a.bound()
		met := set32(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, int32(index("eth0")), unix.PACKET_MR_PROMISC, 0, 0)
		stay()
		return said("join", met)
	}},
	{name: "int 0x80: replace the filter", needs: testutil.HasI386Calls, how: "SO_LOCK_FILTER 0, SO_DETACH_FILTER", in: []setting{run, settled, held, passed}, do: func(a *attacker) error {
		fd := a.bound()
		var t tally
		t.add(set32(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0))
		t.add(set32(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
		return then(t.met(), a.look(fd))
	}},
	{name: "int 0x80: copies beside a ring", needs: testutil.HasI386Calls, how: "PACKET_COPY_THRESH", in: []setting{run, settled, held, passed}, do: func(a *attacker) error {
		fd := a.bound()
		met := set32(fd, unix.SOL_PACKET, unix.PACKET_COPY_THRESH, 1)
		return then(said("set", met), a.look(fd))
	}},
	{name: "int 0x80: memory", needs: testutil.HasI386Calls, how: "SO_RCVBUFFORCE, and a ring of 256 MB", in: []setting{run, settled, held, passed}, open: []setting{settled, held, passed}, do: func(a *attacker) error {
		fd := a.captive()
		must("version", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2))
		var t tally
		t.add(set32(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<30))
		t.add(set32(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, 4<<20, 64, 4096, 64<<10))
		return t.refused()
	}},
}

// in32 is an attempt on a captive in all hands, with a control.
func in32(name, how string, do func(a *attacker, fd int) error) attempt {
	return attempt{name: name, how: how, needs: testutil.HasI386Calls, in: []setting{run, settled, held, passed}, control: true,
		do: func(a *attacker) error { return do(a, a.captive()) }}
}

// opened marks where an attempt is known to succeed.
func opened(a attempt, in ...setting) attempt {
	a.open = in
	return a
}

var (
	page32 []byte // below 4 GB, with code and what calls point to
	used   int    // of its second half
)

// int80 makes an i386 call, with machine code in memory of its own.
func int80(nr int32, args ...int32) error {
	memory()
	const resultAt = 512
	code := []byte{0x53, 0x55} // push rbx; push rbp
	all := append([]int32{nr}, append(args, make([]int32, 6-len(args))...)...)
	for i, opcode := range []byte{0xb8, 0xbb, 0xb9, 0xba, 0xbe, 0xbf, 0xbd} { // mov imm32 to eax, ebx, ecx, edx, esi, edi, ebp
		code = binary.LittleEndian.AppendUint32(append(code, opcode), uint32(all[i]))
	}
	code = append(code, 0xcd, 0x80, 0x5d, 0x5b, 0x48, 0xa3) // int 0x80; pop rbp; pop rbx; mov [imm64], rax
	code = binary.LittleEndian.AppendUint64(code, uint64(uintptr(unsafe.Pointer(&page32[resultAt]))))
	copy(page32, append(code, 0xc3)) // ret
	entry := unsafe.Pointer(&page32[0])
	f := unsafe.Pointer(&entry) // a func value points to a word with its address
	(*(*func())(unsafe.Pointer(&f)))()
	if result := int32(binary.LittleEndian.Uint32(page32[resultAt:])); result < 0 {
		return unix.Errno(-result)
	}
	return nil
}

func memory() {
	if page32 != nil {
		return
	}
	var err error
	page32, err = unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_32BIT)
	must("memory below 4 GB", err)
}

// low is the address of a copy below 4 GB.
func low(b []byte) int32 {
	memory()
	at := 1<<15 + used
	used = (used + len(b) + 15) &^ 15 % (1 << 14)
	copy(page32[at:], b)
	return int32(uintptr(unsafe.Pointer(&page32[at])))
}

func lowWords(words ...int32) int32 {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, uint32(w))
	}
	return low(b)
}

func set32(fd, level, option int, value ...int32) error {
	return int80(setsockopt32, int32(fd), int32(level), int32(option), lowWords(value...), int32(4*len(value)))
}

// call32 is socketcall(2).
func call32(call int32, args ...int32) error { return int80(socketcall32, call, lowWords(args...)) }

func open32(a *attacker) error {
	var t tally
	t.add(int80(socket32, unix.AF_PACKET, unix.SOCK_RAW, 0))
	t.add(int80(socket32, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW))
	t.add(call32(callSocket, unix.AF_PACKET, unix.SOCK_RAW, 0))
	t.add(call32(callSocket, unix.AF_PACKET, unix.SOCK_PACKET, 0))
	return t.refused()
}

// x32 makes calls of x32: sockets, and setsockopt, which has a number of its
// own there.
func x32(a *attacker) error {
	const bit, setsockoptX32 = 0x40000000, 541
	var t tally
	fd := a.captive()
	one := int32(1)
	_, _, errno := unix.RawSyscall(bit|unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0)
	t.add(orNil(errno))
	_, _, errno = unix.RawSyscall6(bit|setsockoptX32, uintptr(fd), unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, uintptr(unsafe.Pointer(&one)), 4, 0)
	t.add(orNil(errno))
	return fmt.Errorf("%w; %w", t.met(), a.transmit(fd, sendBound))
}

// rewriteCall traces a child, and makes a call of its that the filter lets
// through one that it would not.
func rewriteCall(a *attacker) error {
	if a.stage != "" {
		runtime.LockOSThread()
		unix.Kill(unix.Getpid(), unix.SIGSTOP)
		fd, _, errno := unix.RawSyscall(unix.SYS_GETPPID, unix.AF_PACKET, unix.SOCK_RAW, uintptr(networkOrder(unix.ETH_P_ALL)))
		if errno != 0 {
			return errno
		}
		return a.abuse(int(fd))
	}
	runtime.LockOSThread()
	cmd := a.next("traced", a.bound())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	must("start", cmd.Start())
	n, err := rewriteUntilEnd(cmd)
	return fmt.Errorf("%d calls rewritten (%v)", n, err)
}

// rewriteUntilEnd lets a traced process run, and rewrites its calls of getppid.
func rewriteUntilEnd(cmd *exec.Cmd) (rewritten int, err error) {
	pid := cmd.Process.Pid
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		return 0, err
	}
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(pid, options); err != nil {
		return 0, err
	}
	unix.PtraceSyscall(pid, 0)
	for {
		tid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if err != nil || tid == pid && (ws.Exited() || ws.Signaled()) {
			return rewritten, err
		}
		if !ws.Stopped() {
			continue
		}
		sig := ws.StopSignal()
		switch {
		case sig == unix.SIGTRAP|0x80:
			rewritten += rewriteGetppid(tid)
			sig = 0
		case sig == unix.SIGTRAP, sig == unix.SIGSTOP:
			sig = 0
		}
		unix.PtraceSyscall(tid, int(sig))
	}
}

// rewriteGetppid makes the call of a stopped thread socket(2), if it is
// getppid(2), and is what it has rewritten.
func rewriteGetppid(tid int) int {
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &regs) != nil || regs.Orig_rax != unix.SYS_GETPPID || int64(regs.Rax) != -int64(unix.ENOSYS) {
		return 0
	}
	regs.Orig_rax = unix.SYS_SOCKET
	if unix.PtraceSetRegs(tid, &regs) != nil {
		return 0
	}
	return 1
}
