package bpf

import (
	"fmt"

	xbpf "golang.org/x/net/bpf"
)

// A Cause is a way in which FreeBSD and Linux differ.
type Cause string

// The causes, in the order of docs/PARITY.md.
const (
	CauseNoFilter Cause = "no-filter" // a program without instructions
	CauseLength   Cause = "length"    // more instructions than FreeBSD takes
	CauseShift    Cause = "shift"     // a constant shift by 32 or more
	CauseMemory   Cause = "memory"    // M[] read before it is written
	CauseMetadata Cause = "metadata"  // an offset that means something else than the packet's bytes on Linux
	CauseHalfWord Cause = "half-word" // ldh [k] behind the end of the packet
	CauseIndex    Cause = "index"     // an indexed load whose X + k may pass 2^31
)

// A Difference is a place in a program that does not mean the same on FreeBSD
// and on Linux.
type Difference struct {
	Index   int    // of the instruction, from 0; -1: the program as a whole
	Line    string // the instruction, as Program.Line gives it; "" for the whole
	Cause   Cause
	FreeBSD string // what it does there
	Linux   string
}

func (d Difference) String() string {
	where := "the program"
	if d.Index >= 0 {
		where = "instruction " + d.Line
	}
	return fmt.Sprintf("%s: FreeBSD %s; Linux %s", where, d.FreeBSD, d.Linux)
}

const (
	rejects    = "rejects the packet"
	readsZero  = "loads 0 and goes on where it receives, and rejects the packet where it writes"
	refuses    = "refuses the program"
	takesMod32 = "takes the count modulo 32"
)

// Portable lists the places where p does not mean the same on FreeBSD and
// Linux, in order; none means that every packet gets the same verdict on both,
// also where FreeBSD's two interpreters differ (see VM). A program that both
// refuse is not different.
//
// A place is listed if Portable cannot rule out that it matters: it does not
// know which ways through a program are possible, but knows bounds of A and X.
func Portable(p Program) []Difference {
	onFreeBSD, onLinux := p.Validate(FreeBSD), p.Validate(Linux)
	switch {
	case len(p) == 0:
		return []Difference{{-1, "", CauseNoFilter, "takes it for no filter: all packets pass", refuses}}
	case onFreeBSD != nil && onLinux == nil:
		return []Difference{{-1, "", CauseLength, fmt.Sprintf("takes %d instructions (net.bpf.maxinsns), not %d", FreeBSD.MaxInstructions(), len(p)),
			"takes it"}}
	case onFreeBSD != nil:
		return nil
	}
	var found []Difference
	_, unwritten := p.unwritten()
	bounds := p.bounds()
	for i, in := range p {
		var d Difference
		switch {
		case shiftsByK(in) && in.K >= 32:
			d = Difference{Cause: CauseShift, FreeBSD: takesMod32, Linux: refuses}
		case i == unwritten:
			d = Difference{Cause: CauseMemory, FreeBSD: "reads 0 from a cell that was not written", Linux: refuses}
		case looksElsewhere(in):
			d = metadataDifference(in)
		case in.Op == opLdH && in.K < skfLLOff && p.goesOnBehind(i):
			d = Difference{Cause: CauseHalfWord, FreeBSD: "behind the end " + readsZero, Linux: rejects}
		case in.Op&classMask == classLd && in.Op&modeMask == modeInd && bounds[i][1]+uint64(in.K) >= 1<<31:
			d = Difference{Cause: CauseIndex,
				FreeBSD: "takes X + k modulo 2^32 where it receives, and rejects the packet where it writes",
				Linux:   fmt.Sprintf("takes X + k modulo 2^32, and from %#x on finds other parts of the packet", uint32(skfLLOff))}
		default:
			continue
		}
		d.Index, d.Line = i, p.Line(i)
		found = append(found, d)
	}
	return found
}

// metadataDifference is about a load from an offset that Linux keeps for
// something else.
func metadataDifference(in xbpf.RawInstruction) Difference {
	d := Difference{Cause: CauseMetadata, FreeBSD: rejects}
	if in.Op == opLdH {
		d.FreeBSD = readsZero
	}
	name, known := ancillaryNames[in.K]
	switch {
	case in.Op != opLdxMsh && in.K >= skfAdOff && !known:
		d.Linux = refuses
	case in.Op != opLdxMsh && in.K >= skfAdOff:
		d.Linux = fmt.Sprintf("loads metadata (%s)", name)
	case in.K >= skfNetOff:
		d.Linux = "loads relative to the network header"
	default:
		d.Linux = "loads relative to the link-level header, if there is one"
	}
	return d
}

// goesOnBehind reports whether the program may accept a packet for which the
// half-word at i, an absolute load, is not all there: on FreeBSD's receive path
// it goes on with 0 in A.
func (p Program) goesOnBehind(i int) bool {
	end := uint64(p[i].K) + 1 // bytes that the packet has at most
	type state struct{ reached, aIsZero bool }
	at := make([]state, len(p))
	at[i+1] = state{true, true}
	goTo := func(to int, zero bool) {
		at[to] = state{true, zero && (at[to].aIsZero || !at[to].reached)}
	}
	for pc := i + 1; pc < len(p); pc++ {
		if !at[pc].reached {
			continue
		}
		in, zero := p[pc], at[pc].aIsZero
		_, sets := effects(in)
		switch {
		case in.Op == opRetK && in.K != 0, in.Op == opRetA && !zero:
			return true
		case in.Op&classMask == classRet:
		case in.Op == opJa:
			goTo(pc+1+int(in.K), zero)
		case isBranch(in.Op):
			decided := zero && in.Op&srcX == 0
			if jumps := jumpsOnZero(in); !decided || jumps {
				goTo(pc+1+int(in.Jt), zero)
			}
			if jumps := jumpsOnZero(in); !decided || !jumps {
				goTo(pc+1+int(in.Jf), zero)
			}
		case loadsBehind(in, end):
			if in.Op == opLdH {
				goTo(pc+1, true)
			}
		case sets&regA != 0:
			goTo(pc+1, in.Op == opLdImm && in.K == 0 || zero && keepsZero(in))
		default:
			goTo(pc+1, zero)
		}
	}
	return false
}

// loadsBehind reports whether a load from a fixed offset is not all in a packet
// of so many bytes.
func loadsBehind(in xbpf.RawInstruction, size uint64) bool {
	switch in.Op {
	case opLdW, opLdH, opLdB, opLdxMsh:
		return uint64(in.K)+uint64(loadWidth(in.Op)) > size
	}
	return false
}

// jumpsOnZero reports whether a jump that compares A with a constant takes its
// true branch if A is 0.
func jumpsOnZero(in xbpf.RawInstruction) bool {
	return in.K == 0 && (in.Op == opJeq || in.Op == opJge)
}

// keepsZero reports whether arithmetic leaves a 0 in A what it is.
func keepsZero(in xbpf.RawInstruction) bool {
	if in.Op&classMask != classAlu {
		return false
	}
	switch in.Op & aluMask {
	case aluAnd, aluMul, aluDiv, aluMod, aluLsh, aluRsh, aluNeg:
		return true
	}
	return false
}
