//go:build amd64 || arm64

package jail

import "golang.org/x/sys/unix"

// kept are the capabilities that a jail's root has (capabilities(7)): over files,
// users and processes, all of which are the jail's own, and ports below 1024.
// None is over a network, devices, the kernel, or other users' secrets:
// CAP_DAC_READ_SEARCH would open any file of a file system by its handle, CAP_MKNOD
// any disk, and CAP_SETFCAP would give the host's users what the jail may not have.
var kept = []uint{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID,
	unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SYS_CHROOT,
	unix.CAP_AUDIT_WRITE, // sshd(8) lets nobody in without
	unix.CAP_NET_BIND_SERVICE,
}

// caps are those of a jail as a bit mask.
func (s *Spec) caps() uint64 {
	var mask uint64
	for _, c := range kept {
		mask |= 1 << c
	}
	if s.NoReservedPorts {
		mask &^= 1 << unix.CAP_NET_BIND_SERVICE
	}
	if s.RawSockets {
		mask |= 1 << unix.CAP_NET_RAW
	}
	return mask
}
