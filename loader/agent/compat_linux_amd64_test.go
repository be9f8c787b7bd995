package agent

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// A captive's options are not guarded against 32-bit calls, so that there may be
// none, not even harmless ones.
func TestThereAreNo32BitCalls(t *testing.T) {
	names, want := []string{"x32 socket", "x32 setsockopt"}, ""
	program := "x32"
	if testutil.HasI386Calls(t) {
		program, names = "compat", append([]string{"getpid", "socket", "socketcall", "setsockopt", "io_uring_setup"}, names...)
	}
	for _, name := range names {
		want += name + fmt.Sprintln(":", -int32(unix.ENOSYS))
	}
	if output := (&setting{}).program(t, program); output != want {
		t.Errorf("%s\nwant\n%s", output, want)
	}
}

func init() {
	programs["compat"] = func([]string) {
		fd := int32(packetSocket(0))
		call := int80(fatal)
		fmt.Println("getpid:", call(20, 0, 0, 0, 0, 0))
		fmt.Println("socket:", call(359, unix.AF_PACKET, unix.SOCK_RAW, 0, 0, 0))
		fmt.Println("socketcall:", call(102, 1, 0, 0, 0, 0))
		fmt.Println("setsockopt:", call(366, fd, unix.SOL_PACKET, unix.PACKET_FANOUT, 0, 4))
		fmt.Println("io_uring_setup:", call(425, 1, 0, 0, 0, 0))
		callX32(int(fd))
	}
	programs["x32"] = func([]string) { callX32(packetSocket(0)) }
}

func callX32(fd int) {
	_, _, errno := unix.RawSyscall(x32Bit|unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0)
	fmt.Printf("x32 socket: %d\n", -int(errno))
	_, _, errno = unix.RawSyscall6(x32Bit|541, uintptr(fd), unix.SOL_PACKET, unix.PACKET_FANOUT, 0, 4, 0)
	fmt.Printf("x32 setsockopt: %d\n", -int(errno))
}

func fatal(args ...any) {
	fmt.Println(args...)
	os.Exit(1)
}

// int80 makes calls of the i386 kind, with machine code in memory of its own.
func int80(fail func(...any)) func(nr, a, b, c, d, e int32) int32 {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		fail(err)
	}
	const result = 256 // offset of the result
	return func(nr, a, b, c, d, e int32) int32 {
		code := []byte{0x53} // push rbx
		for _, load := range []struct {
			opcode byte // mov r32, imm32: eax, ebx, ecx, edx, esi, edi
			value  int32
		}{{0xb8, nr}, {0xbb, a}, {0xb9, b}, {0xba, c}, {0xbe, d}, {0xbf, e}} {
			code = binary.LittleEndian.AppendUint32(append(code, load.opcode), uint32(load.value))
		}
		code = append(code, 0xcd, 0x80, 0x5b, 0x48, 0xa3) // int 0x80; pop rbx; mov [imm64], rax
		code = binary.LittleEndian.AppendUint64(code, uint64(uintptr(unsafe.Pointer(&page[result]))))
		copy(page, append(code, 0xc3)) // ret
		entry := unsafe.Pointer(&page[0])
		f := unsafe.Pointer(&entry) // a func value points to a word with its address
		(*(*func())(unsafe.Pointer(&f)))()
		return int32(binary.LittleEndian.Uint32(page[result:]))
	}
}
