//go:build linux && !amd64

package nsjail

// otherSyscalls are those of bySyscall that not all architectures have. What
// waits in one is told by the kernel's function then.
var otherSyscalls map[int]string
