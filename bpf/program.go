package bpf

import (
	"fmt"

	xbpf "golang.org/x/net/bpf"
)

// A Program is a classic BPF program in the form that the kernels take:
// struct sock_filter (linux/filter.h) and struct bpf_insn (net/bpf.h) have the
// same four fields.
//
// A program's verdict is the number of bytes of the frame to keep; 0 rejects
// the frame. An empty Program stands for "no filter" and keeps everything.
type Program []xbpf.RawInstruction

// KeepAll is the verdict of a program that keeps whole frames.
const KeepAll = 0xffffffff

// ProgramError says which instruction of a program is wrong, and why.
type ProgramError struct {
	Index  int                 // of the instruction, from 0; -1 for the program as a whole
	Ins    xbpf.RawInstruction // the instruction itself
	Reason string
}

func (e *ProgramError) Error() string {
	if e.Index < 0 {
		return "invalid program: " + e.Reason
	}
	return fmt.Sprintf("invalid program: instruction %d (%#02x %d %d %#x): %s",
		e.Index, e.Ins.Op, e.Ins.Jt, e.Ins.Jf, e.Ins.K, e.Reason)
}
