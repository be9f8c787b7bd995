package bpf

import xbpf "golang.org/x/net/bpf"

// A block is a node of a program's flow graph: straight-line instructions and
// one decision at their end. All jumps of a classic program go forward, so the
// graph has no cycle.
type block struct {
	body []xbpf.RawInstruction // neither jumps nor returns
	last xbpf.RawInstruction   // a RET, or a conditional jump to yes or no (Jt and Jf mean nothing here)
	yes  *block
	no   *block

	// scope marks blocks of a prefix. They stay apart from blocks that look
	// the same, so that what a path has tested can be told from where it is.
	scope bool

	// forget marks blocks that many paths lead to which differ only in the
	// addresses seen: specialize drops what it knows of those, instead of
	// making a copy for each path.
	forget bool

	// tail marks the place where a finished program follows (see emit).
	tail bool
}

func (b *block) returns() bool { return b.last.Op&classMask == classRet }

func ins(op uint16, k uint32) xbpf.RawInstruction { return xbpf.RawInstruction{Op: op, K: k} }

func ret(k uint32) *block { return &block{last: ins(opRetK, k)} }

// graph turns a valid program into its flow graph. An empty one keeps
// everything.
func (p Program) graph() *block {
	if len(p) == 0 {
		return ret(KeepAll)
	}
	// From the end, so that what an instruction leads to is known. at[i] is
	// the block that begins with instruction i; where no jump ends it before
	// a place that is jumped to, the block repeats what stands there.
	at := make([]*block, len(p))
	for i := len(p) - 1; i >= 0; i-- {
		in := p[i]
		switch {
		case in.Op&classMask == classRet:
			at[i] = &block{last: in}
		case in.Op == opJa:
			at[i] = at[i+1+int(in.K)]
		case in.Op&classMask == classJmp:
			at[i] = &block{last: in, yes: at[i+1+int(in.Jt)], no: at[i+1+int(in.Jf)]}
		default:
			at[i] = at[i+1].behind(in)
		}
	}
	return at[0]
}

// behind is b with more instructions in front of it.
func (b *block) behind(before ...xbpf.RawInstruction) *block {
	c := *b
	c.body = append(before[:len(before):len(before)], b.body...)
	return &c
}

// mapBodies is the graph with each block's body replaced by f's answer.
func (b *block) mapBodies(f func([]xbpf.RawInstruction) ([]xbpf.RawInstruction, error)) (*block, error) {
	done := make(map[*block]*block)
	var visit func(b *block) (*block, error)
	visit = func(b *block) (*block, error) {
		if b == nil || done[b] != nil {
			return done[b], nil
		}
		c := *b
		var err error
		if c.body, err = f(b.body); err != nil {
			return nil, err
		}
		if c.yes, err = visit(b.yes); err != nil {
			return nil, err
		}
		if c.no, err = visit(b.no); err != nil {
			return nil, err
		}
		done[b] = &c
		return &c, nil
	}
	return visit(b)
}

// A regs is a set of the machine's registers: bit 0 is A, bit 1 X, and the
// bits from 2 are M[0] to M[15].
type regs uint32

const (
	regA regs = 1 << iota
	regX
	regM0
)

func regM(k uint32) regs { return regM0 << (k % memWords) }

// effects says which registers an instruction reads, and which it sets.
func effects(in xbpf.RawInstruction) (reads, sets regs) {
	switch in.Op & classMask {
	case classLd:
		return loadReads(in), regA
	case classLdx:
		return loadReads(in), regX
	case classSt:
		return regA, regM(in.K)
	case classStx:
		return regX, regM(in.K)
	case classAlu:
		return regA | operandReads(in), regA
	case classJmp:
		return regA | operandReads(in), 0
	case classRet:
		if in.Op == opRetA {
			return regA, 0
		}
		return 0, 0
	default: // classMisc
		if in.Op == opTax {
			return regA, regX
		}
		return regX, regA
	}
}

func operandReads(in xbpf.RawInstruction) regs {
	if in.Op&srcX != 0 && in.Op&aluMask != aluNeg {
		return regX
	}
	return 0
}

func loadReads(in xbpf.RawInstruction) regs {
	switch in.Op & modeMask {
	case modeInd:
		return regX
	case modeMem:
		return regM(in.K)
	case modeAbs:
		switch in.K {
		case adNlattr, adNlattrNest, adAluXorX:
			return regA | regX
		case adIfindex, adHatype:
			return regA // the verdict of a packet without a device
		}
	}
	return 0
}

// liveBefore is what must be right before the instructions, if live must be
// after them.
func liveBefore(body []xbpf.RawInstruction, live regs) regs {
	for i := len(body) - 1; i >= 0; i-- {
		reads, sets := effects(body[i])
		live = live&^sets | reads
	}
	return live
}

// liveness finds which registers each block of the graph needs at its start.
func (b *block) liveness() map[*block]regs {
	live := make(map[*block]regs)
	var visit func(b *block) regs
	visit = func(b *block) regs {
		if l, ok := live[b]; ok {
			return l
		}
		after, _ := effects(b.last)
		if !b.returns() {
			after |= visit(b.yes) | visit(b.no)
		}
		live[b] = liveBefore(b.body, after)
		return live[b]
	}
	visit(b)
	return live
}
