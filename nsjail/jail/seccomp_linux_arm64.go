package jail

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// refusedHere are system calls that other architectures do not have.
var refusedHere = []uint32{unix.SYS_KEXEC_FILE_LOAD}
