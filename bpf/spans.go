package bpf

import "slices"

// spans is a set of 32-bit values: sorted ranges of which no two touch.
type spans []span

type span struct{ lo, hi uint32 }

var anyValue = spans{{0, 0xffffffff}}

// maxSpans bounds how exact a set is. A union of more is rounded up to the
// range around it.
const maxSpans = 16

// and is the values that lie between lo and hi too.
func (s spans) and(lo, hi uint32) spans {
	var r spans
	for _, p := range s {
		if lo, hi := max(p.lo, lo), min(p.hi, hi); lo <= hi {
			r = append(r, span{lo, hi})
		}
	}
	return r
}

// without is the values but one.
func (s spans) without(k uint32) spans {
	r := make(spans, 0, len(s)+1)
	for _, p := range s {
		if k < p.lo || k > p.hi {
			r = append(r, p)
			continue
		}
		if p.lo < k {
			r = append(r, span{p.lo, k - 1})
		}
		if k < p.hi {
			r = append(r, span{k + 1, p.hi})
		}
	}
	return r
}

func (s spans) has(k uint32) bool {
	return slices.ContainsFunc(s, func(p span) bool { return p.lo <= k && k <= p.hi })
}

// or is the union.
func (s spans) or(o spans) spans {
	if slices.Equal(s, o) {
		return s
	}
	all := slices.Concat(s, o)
	slices.SortFunc(all, func(a, b span) int { return compareUint32(a.lo, b.lo) })
	r := all[:0]
	for _, p := range all {
		if n := len(r); n > 0 && (r[n-1].hi == 0xffffffff || p.lo <= r[n-1].hi+1) {
			r[n-1].hi = max(r[n-1].hi, p.hi)
			continue
		}
		r = append(r, p)
	}
	if len(r) > maxSpans {
		return spans{{r[0].lo, r[len(r)-1].hi}}
	}
	return r
}

func compareUint32(a, b uint32) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// jump is the values with which a conditional jump on k goes one way.
func (s spans) jump(op uint16, k uint32, yes bool) spans {
	switch op & jmpMask {
	case jmpJeq:
		if yes {
			return s.and(k, k)
		}
		return s.without(k)
	case jmpJgt:
		if !yes {
			return s.and(0, k)
		}
		if k == 0xffffffff {
			return nil
		}
		return s.and(k+1, 0xffffffff)
	case jmpJge:
		if yes {
			return s.and(k, 0xffffffff)
		}
		if k == 0 {
			return nil
		}
		return s.and(0, k-1)
	}
	return s // jset: see prover.jump
}

// each calls f with every value, if they are few; ok is false if they are not,
// or if f says so.
func (s spans) each(f func(v uint32) bool) (ok bool) {
	for _, p := range s {
		if p.hi-p.lo >= maxSpans {
			return false
		}
		for v := uint64(p.lo); v <= uint64(p.hi); v++ {
			if !f(uint32(v)) {
				return false
			}
		}
	}
	return true
}
