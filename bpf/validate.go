package bpf

import "fmt"

// Validate reports whether the system takes p: by the rules of bpf_validate
// (sys/net/bpf_filter.c) and the length limit of bpf_setf (sys/net/bpf.c) on
// FreeBSD, by those of bpf_check_classic and check_load_and_stores
// (net/core/filter.c) on Linux. The error is a *ProgramError.
//
// The empty program is valid on FreeBSD only, where it means no filter.
func (p Program) Validate(d Dialect) error {
	if len(p) == 0 {
		if d == FreeBSD {
			return nil
		}
		return &ProgramError{Index: -1, Reason: "it has no instructions, which Linux does not take for 'no filter'"}
	}
	if most := d.MaxInstructions(); len(p) > most {
		return &ProgramError{Index: -1, Reason: fmt.Sprintf("it has %d instructions; %s takes %d", len(p), d, most)}
	}
	for i := range p {
		if reason := p.fault(i, d); reason != "" {
			return &ProgramError{i, p[i], reason}
		}
	}
	if last := len(p) - 1; p[last].Op&classMask != classRet {
		return &ProgramError{last, p[last], "the last instruction has to be a ret"}
	}
	if d == Linux {
		return p.checkMemory()
	}
	return nil
}

// fault is what is wrong with instruction i by itself; "" if nothing is.
func (p Program) fault(i int, d Dialect) string {
	ins := p[i]
	if !known(ins.Op) {
		return "no such opcode"
	}
	behind := uint32(len(p) - i - 1) // number of instructions behind this one
	switch ins.Op {
	case opJa:
		if ins.K >= behind {
			return fmt.Sprintf("it jumps over %d instructions, of %d behind it", ins.K, behind)
		}
	case classAlu | aluDiv, classAlu | aluMod:
		if ins.K == 0 {
			return "division by 0"
		}
	case classAlu | aluLsh, classAlu | aluRsh:
		if d == Linux && ins.K >= 32 {
			return "Linux does not shift 32 bits by 32 or more"
		}
	case opLdMem, opLdxMem, opSt, opStx:
		if ins.K >= memWords {
			return fmt.Sprintf("no such memory cell: M[] has %d", memWords)
		}
	case opLdW, opLdH, opLdB:
		if _, ok := ancillaryNames[ins.K]; d == Linux && ins.K >= skfAdOff && !ok {
			return "Linux has no metadata at this offset"
		}
	}
	if far := uint32(max(ins.Jt, ins.Jf)); isBranch(ins.Op) && far >= behind {
		return fmt.Sprintf("it jumps over %d instructions, of %d behind it", far, behind)
	}
	return ""
}

// checkMemory refuses reads of M[] that no write comes before on some path.
func (p Program) checkMemory() error {
	if _, i := p.unwritten(); i >= 0 {
		return &ProgramError{i, p[i], fmt.Sprintf("it may read M[%d] before it is written, which Linux refuses", p[i].K)}
	}
	return nil
}

// unwritten is the set of cells (bit n: M[n]) that may be read before they are
// written, and the first instruction that may do so, or -1. It knows as much of
// paths as the kernel (check_load_and_stores): what follows a ret counts as
// reached with the cells that were written before the ret.
func (p Program) unwritten() (cells uint16, first int) {
	first = -1
	missing := make([]uint16, len(p)) // bit n: a jump to this instruction comes without a value in M[n]
	var now uint16 = 0xffff           // the same here and now
	for i, ins := range p {
		now |= missing[i]
		switch {
		case ins.Op == opSt || ins.Op == opStx:
			now &^= 1 << ins.K
		case ins.Op == opLdMem || ins.Op == opLdxMem:
			cells |= now & (1 << ins.K)
			if first < 0 && cells != 0 {
				first = i
			}
		case ins.Op == opJa:
			missing[i+1+int(ins.K)] |= now
			now = 0
		case isBranch(ins.Op):
			missing[i+1+int(ins.Jt)] |= now
			missing[i+1+int(ins.Jf)] |= now
			now = 0
		}
	}
	return cells, first
}
