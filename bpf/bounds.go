package bpf

import (
	"math"
	"slices"

	xbpf "golang.org/x/net/bpf"
)

// bounds is, for each instruction, the most that A, X and M[0] to M[15] can be
// when it runs, in this order; instructions that nothing leads to have 0.
func (p Program) bounds() [][2 + memWords]uint64 {
	at := make([][2 + memWords]uint64, len(p))
	goTo := func(to int, most [2 + memWords]uint64) {
		for r := range most {
			at[to][r] = max(at[to][r], most[r])
		}
	}
	reached := slices.Concat([]bool{true}, make([]bool, len(p)))
	for i, in := range p {
		if !reached[i] {
			continue
		}
		most := at[i]
		switch in.Op & classMask {
		case classRet:
			continue
		case classJmp:
			hops := []uint32{uint32(in.Jt), uint32(in.Jf)}
			if in.Op == opJa {
				hops = []uint32{in.K}
			}
			for _, hop := range hops {
				to := i + 1 + int(hop)
				reached[to] = true
				goTo(to, most)
			}
			continue
		case classLd:
			most[0] = mostLoaded(in, &most)
		case classLdx:
			most[1] = mostLoaded(in, &most)
		case classSt:
			most[2+in.K] = most[0]
		case classStx:
			most[2+in.K] = most[1]
		case classAlu:
			most[0] = mostComputed(in, &most)
		case classMisc:
			if in.Op == opTax {
				most[1] = most[0]
			} else {
				most[0] = most[1]
			}
		}
		reached[i+1] = true
		goTo(i+1, most)
	}
	return at
}

// mostLoaded is the most that a load can give.
func mostLoaded(in xbpf.RawInstruction, most *[2 + memWords]uint64) uint64 {
	switch in.Op & modeMask {
	case modeImm:
		return uint64(in.K)
	case modeMem:
		return most[2+in.K]
	case modeMsh:
		return 15 * 4
	case modeLen:
		return math.MaxInt32 // packets are shorter
	}
	if in.Op&modeMask == modeAbs && in.K >= skfAdOff {
		return math.MaxUint32 // Linux: metadata, whatever the load's width
	}
	return 1<<(8*loadWidth(in.Op)) - 1
}

// mostComputed is the most that arithmetic can leave in A.
func mostComputed(in xbpf.RawInstruction, most *[2 + memWords]uint64) uint64 {
	a, operand, least := most[0], uint64(in.K), uint64(in.K) // operand: at most; least: at least
	if in.Op&srcX != 0 {
		operand, least = most[1], 0
	}
	switch in.Op & aluMask {
	case aluAdd:
		return wrapped(a + operand)
	case aluMul:
		if a != 0 && operand > math.MaxUint32/a {
			return math.MaxUint32
		}
		return a * operand
	case aluAnd:
		return min(a, operand)
	case aluDiv:
		return a / max(least, 1)
	case aluMod:
		return min(a, operand)
	case aluRsh:
		return a >> (least % 32)
	case aluLsh:
		if in.Op&srcX == 0 {
			return wrapped(a << (operand % 32))
		}
	}
	return math.MaxUint32
}

// wrapped is the bound for a value that is taken modulo 2^32.
func wrapped(most uint64) uint64 { return min(most, math.MaxUint32) }
