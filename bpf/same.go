package bpf

// SameVerdicts reports whether it can be shown that a and b give the same
// verdict on every frame that has what they load, and does not make them divide
// by zero. false means only that it could not be shown.
//
// It runs b behind each way through a, with what the tests on that way have
// established; if then no question is left open, they are the same.
func SameVerdicts(a, b Program) bool {
	comparison, ok := a.graph().thenCompare(b)
	if !ok {
		return false
	}
	s := newSpecializer(comparison)
	s.flat = true
	same, ok := s.specialize(comparison)
	return ok && same.rejects()
}

// thenCompare runs b where the graph returns, and then keeps the frames for
// which the verdicts are not the same. ok is false if a verdict is computed.
func (b *block) thenCompare(p Program) (_ *block, ok bool) {
	done := make(map[*block]*block)
	ok = true
	var visit func(b *block) *block
	visit = func(b *block) *block {
		if c := done[b]; c != nil {
			return c
		}
		c := *b
		if b.returns() {
			behind, plain := p.restart().differsFrom(b.last.K)
			ok = ok && plain && b.last.Op != opRetA
			c = *behind.behind(b.body...)
		} else {
			c.yes, c.no = visit(b.yes), visit(b.no)
		}
		done[b] = &c
		return &c
	}
	return visit(b), ok
}

// restart is the program's graph with all registers as at the start.
func (p Program) restart() *block {
	entry := p.graph()
	live := entry.liveness()[entry]
	var before Program
	for k := range uint32(memWords) {
		if live&regM(k) != 0 {
			before = append(before, ins(opLdImm, 0), ins(opSt, k))
		}
	}
	return entry.behind(append(before, ins(opLdImm, 0), ins(opLdxImm, 0))...)
}

// differsFrom is the graph with its verdict k turned into 0, all others into 1.
func (b *block) differsFrom(k uint32) (_ *block, ok bool) {
	done := make(map[*block]*block)
	ok = true
	var visit func(b *block) *block
	visit = func(b *block) *block {
		if c := done[b]; c != nil {
			return c
		}
		c := *b
		switch {
		case b.last.Op == opRetA:
			ok = false
		case b.returns() && b.last.K == k:
			c.last = ins(opRetK, 0)
		case b.returns():
			c.last = ins(opRetK, 1)
		default:
			c.yes, c.no = visit(b.yes), visit(b.no)
		}
		done[b] = &c
		return &c
	}
	return visit(b), ok
}
