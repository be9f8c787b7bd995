package bpf

import xbpf "golang.org/x/net/bpf"

// beyond is an offset behind the end of every packet, on both systems: Linux
// takes those from 0x80000000 on for negative numbers, which mean something.
const beyond = 0x7fffffff

// Normalize turns a program that FreeBSD takes into one that Linux takes too,
// with the verdicts that FreeBSD gives for a packet in a flat buffer:
//
//   - cells of M[] that may be read before they are written are set to 0 first;
//   - constant shift counts are taken modulo 32;
//   - loads at offsets that mean metadata on Linux get one that no packet has;
//   - no program, which Linux does not take, becomes one that keeps everything.
//
// Indexed loads stay as they are. Where X + k passes 2^32 they do on Linux what
// they do on FreeBSD's receive path, and not in a flat buffer; where it comes
// near, they may find metadata on Linux. Portable names them.
//
// The error is a *ProgramError: FreeBSD does not take p, which may be for its
// length. The result has at most 16 instructions more than p.
func Normalize(p Program) (Program, error) {
	if err := p.Validate(FreeBSD); err != nil {
		return nil, err
	}
	if len(p) == 0 {
		return Program{ins(opRetK, KeepAll)}, nil
	}
	// Jumps are relative: what is put in front does not touch them.
	var normal Program
	unwritten, _ := p.unwritten()
	for k := range uint32(memWords) {
		if unwritten&(1<<k) != 0 {
			normal = append(normal, ins(opSt, k)) // A is 0 at the start
		}
	}
	normal = append(normal, p...)
	for i, in := range normal {
		switch {
		case shiftsByK(in):
			normal[i].K %= 32
		case looksElsewhere(in):
			normal[i].K = beyond
		}
	}
	return normal, nil
}

// shiftsByK reports whether the instruction shifts by a constant.
func shiftsByK(in xbpf.RawInstruction) bool {
	return in.Op == classAlu|aluLsh || in.Op == classAlu|aluRsh
}

// looksElsewhere reports whether the instruction loads from a fixed offset at
// which Linux has something else than the packet's bytes.
func looksElsewhere(in xbpf.RawInstruction) bool {
	switch in.Op {
	case opLdW, opLdH, opLdB, opLdxMsh:
		return in.K >= skfLLOff
	}
	return false
}
