//go:build amd64 || arm64

package jail

import (
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// An initSpec tells the program of init.c what to do. Keep in sync with struct
// spec there.
type initSpec struct {
	Mode         uint32
	Namespaces   uint32 // CLONE_NEW*, that a command enters
	Caps         uint64 // those that root keeps, as a bit mask
	UID, GID     uint32
	NGroups      uint32
	SeccompFlags uint32
	Groups       [64]uint32
	NInsns       uint32
	Insns        [512]bpf.RawInstruction
	_            [4]byte // the struct's size is a multiple of 8
}

const (
	modeInit = iota
	modeCommand
	modeInitAndCommand
)

// A step is what a report of the program is about. Keep in sync with enum step in
// init.c.
type step int32

const (
	procReady    step = iota // the value is the descriptor of a proc file system, not yet mounted
	confined                 // the value is the descriptor of a pidfd of the command, if there is one
	listener                 // the value is the descriptor of a seccomp listener
	commandEnded             // the value is the status, as wait(2) has it, of the first process's command
	atSpec
	atProc
	atSession
	atCgroup
	atFork
	atEnter
	atBounding
	atUser
	atCaps
	atPrivs
	atSeccomp
	atChdir
	atExec
)

// failures say what did not succeed, and for what reason if there is a usual one.
var failures = map[step]string{
	atSpec:     "read the specification",
	atProc:     "make a proc file system (Linux 5.2)",
	atSession:  "make a session",
	atCgroup:   "make a cgroup namespace",
	atFork:     "make the command's process",
	atEnter:    "enter the jail's namespaces (Linux 5.8)",
	atBounding: "drop capabilities from the bounding set: it needs CAP_SETPCAP",
	atUser:     "change the user and its groups",
	atCaps:     "drop capabilities",
	atPrivs:    "set no_new_privs",
	atSeccomp:  "install the seccomp filter: it needs CONFIG_SECCOMP_FILTER",
	atChdir:    "change to the working directory",
}

// A report is what the program says, in the computer's byte order.
type report struct {
	Step  step
	Value int32
}

// err is what went wrong, or nil.
func (r report) err() error {
	switch {
	case r.Step < atSpec:
		return nil
	case r.Step == atExec:
		return unix.Errno(r.Value)
	}
	return fmt.Errorf("%s: %w", failures[r.Step], unix.Errno(r.Value))
}

// bytes are the struct as the program of init.c has it.
func (s *initSpec) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(s)), unsafe.Sizeof(*s))
}

// setFilter puts a seccomp filter in.
func (s *initSpec) setFilter(insns []bpf.RawInstruction) error {
	if len(insns) > len(s.Insns) {
		return fmt.Errorf("the seccomp filter has %d instructions, of which %d fit", len(insns), len(s.Insns))
	}
	s.NInsns = uint32(copy(s.Insns[:], insns))
	return nil
}

func (s *initSpec) setUser(u User) error {
	if len(u.Groups) > len(s.Groups) {
		return fmt.Errorf("user %d is in %d groups, of which %d fit", u.UID, len(u.Groups), len(s.Groups))
	}
	s.UID, s.GID = u.UID, u.GID
	s.NGroups = uint32(copy(s.Groups[:], u.Groups))
	return nil
}
