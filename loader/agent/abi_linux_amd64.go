package agent

import "golang.org/x/sys/unix"

// What seccomp_data calls the architecture (linux/audit.h).
const nativeArch = unix.AUDIT_ARCH_X86_64

// x32Bit marks the numbers of x32's system calls, which have the same
// architecture (__X32_SYSCALL_BIT of asm/unistd.h).
const x32Bit = 0x40000000

// ownerCalls change the user or group of a process or a file.
var ownerCalls = []uint32{
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
	unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_CHOWN, unix.SYS_LCHOWN,
}
