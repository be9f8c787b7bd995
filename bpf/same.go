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

// thenCompare runs p where the graph returns, and then keeps the frames for
// which the verdicts are not the same. ok is false if a verdict is computed.
func (b *block) thenCompare(p Program) (_ *block, ok bool) {
	ok = true
	comparison := b.mapReturns(func(end *block) *block {
		ok = ok && end.last.Op != opRetA
		return p.restart().mapReturns(func(other *block) *block {
			ok = ok && other.last.Op != opRetA
			differ := *other
			differ.last = ins(opRetK, 0)
			if other.last.K != end.last.K {
				differ.last.K = 1
			}
			return &differ
		}).behind(end.body...)
	})
	return comparison, ok
}

// mapReturns is the graph with what f makes of its blocks that return.
func (b *block) mapReturns(f func(*block) *block) *block {
	done := make(map[*block]*block)
	var visit func(b *block) *block
	visit = func(b *block) *block {
		c, ok := done[b]
		switch {
		case ok:
			return c
		case b.returns():
			c = f(b)
		default:
			d := *b
			d.yes, d.no = visit(b.yes), visit(b.no)
			c = &d
		}
		done[b] = c
		return c
	}
	return visit(b)
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
