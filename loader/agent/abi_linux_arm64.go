package agent

import "golang.org/x/sys/unix"

// What seccomp_data calls the architecture (linux/audit.h).
const nativeArch = unix.AUDIT_ARCH_AARCH64

// x32Bit is about x86-64 only; no number here is that large.
const x32Bit = 0x40000000

// ownerCalls change the user or group of a process or a file.
var ownerCalls = []uint32{
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
	unix.SYS_FCHOWN, unix.SYS_FCHOWNAT,
}
