//go:build amd64 || arm64

package jail

import (
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Of struct seccomp_data (linux/seccomp.h); little-endian, so the low half of an
// argument comes first. The kernel takes the low half of an int argument, and so
// does the filter.
const (
	offNumber = 0
	offArch   = 4
	offArg0   = 16
	offArg1   = offArg0 + 8
)

// What the filter answers (linux/seccomp.h).
const (
	retAllow = 0x7fff0000
	retErrno = 0x00050000
	retAsk   = 0x7fc00000 // SECCOMP_RET_USER_NOTIF
)

// newest is the last system call that is known here (Linux 6.17). What comes later
// the jail does not have, as on an older kernel.
const newest = unix.SYS_FILE_SETATTR

// absent are system calls that a jail does not have, as if the kernel was built
// without (ENOSYS), so that programs do without. Some let a program do what others
// are filtered for: io_uring_enter(2) opens sockets, and the flags of clone3(2) are
// in memory, which a filter does not see; clone(2) is used in its place.
var absent = []uint32{
	unix.SYS_CLONE3,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, // keys know no jails
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
	unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_TREE_ATTR, unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT,
	unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL, unix.SYS_VMSPLICE,
}

// refused are those that nobody in a jail may make (EPERM).
var refused = append([]uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SYSLOG,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP,
	unix.SYS_FANOTIFY_INIT, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES,
	unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
}, refusedHere...)

// families are the sockets that a jail has. The packets of AF_PACKET are kept from
// it by capabilities, or come from an agent.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

// newNamespaces are the flags of clone(2) that make namespaces. CLONE_NEWTIME is
// for clone3 and unshare only.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// terminals are requests that type on a terminal, which may be the operator's
// (CVE-2017-5226).
var terminals = []uint32{unix.TIOCSTI, unix.TIOCLINUX}

// filter is the seccomp filter of all processes in a jail. It is not what keeps
// them in, which capabilities and namespaces do, but what keeps them from most of
// the kernel's code that ever failed to. An agent is asked about calls.
func filter(calls []Call) ([]bpf.RawInstruction, error) {
	f := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		errno(unix.ENOSYS),
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: newest, SkipTrue: 1},
		errno(unix.ENOSYS), // x32 (__X32_SYSCALL_BIT) too
	}
	f = append(f, answer(absent, errno(unix.ENOSYS))...)
	f = append(f, answer(refused, errno(unix.EPERM))...)
	for _, c := range calls {
		f = append(f, c.ask()...)
	}
	f = append(f, about(unix.SYS_CLONE, offArg0,
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: newNamespaces, SkipTrue: 1},
		errno(unix.EPERM))...)
	f = append(f, about(unix.SYS_IOCTL, offArg1, answer(terminals, errno(unix.EPERM))...)...)
	f = append(f, about(unix.SYS_SOCKET, offArg0,
		append(answer(families, allow), errno(unix.EAFNOSUPPORT))...)...)
	return bpf.Assemble(append(f, allow))
}

var allow = bpf.RetConstant{Val: retAllow}

func errno(e unix.Errno) bpf.Instruction { return bpf.RetConstant{Val: retErrno | uint32(e)} }

// ask has an agent asked about a call. The number is loaded, and is again when it is
// another call.
func (c Call) ask() []bpf.Instruction {
	tail := []bpf.Instruction{bpf.RetConstant{Val: retAsk}}
	for _, a := range slices.Backward(c.Args) {
		tail = append([]bpf.Instruction{
			bpf.LoadAbsolute{Off: offArg0 + 8*uint32(a.Index), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: a.Value, SkipTrue: uint8(len(tail))},
		}, tail...)
	}
	return slices.Concat([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.Number, SkipTrue: uint8(len(tail))},
	}, tail, []bpf.Instruction{bpf.LoadAbsolute{Off: offNumber, Size: 4}})
}

// answer ends the filter if what is loaded is one of the values.
func answer(values []uint32, how bpf.Instruction) []bpf.Instruction {
	var list []bpf.Instruction
	for _, v := range values {
		list = append(list, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: v, SkipTrue: 1}, how)
	}
	return list
}

// about looks at an argument of a system call, whose number is loaded, and allows
// it if what looks does not end the filter.
func about(number, offset uint32, look ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: uint8(len(look) + 2)},
		bpf.LoadAbsolute{Off: offset, Size: 4},
	}, append(look, allow)...)
}
