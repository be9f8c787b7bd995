package bpf

import (
	"encoding/binary"
	"slices"
)

// A value names what a register holds: equal values are equal numbers, whatever
// the frame. Values are interned terms over what the frame has.
type value int32

// A term is how a value comes about.
type term struct {
	op   uint16 // of the load or the arithmetic that makes it
	k    uint32 // its constant, or the number of an unknown
	a, b value  // its operands
}

// Terms that are no instruction's: opcodes above 0xff.
const (
	termConst   = 0x100 // the constant k
	termUnknown = 0x101 // number k of the values of which nothing is known
	termUnread  = 0x102 // whatever a register holds that nobody reads
	termCompare = 0x200 // | jump opcode: 1 if the comparison of a and b holds, else 0
)

// terms is the table of values.
type terms struct {
	of    []term
	index map[term]value
	loads []loadSet // of each value: the loads that it is made of
	seen  map[load]int
}

func newTerms() *terms {
	return &terms{index: make(map[term]value, usualBlocks), seen: make(map[load]int)}
}

func (t *terms) value(k term) value {
	if v, ok := t.index[k]; ok {
		return v
	}
	v := value(len(t.of))
	t.of = append(t.of, k)
	t.index[k] = v
	t.loads = append(t.loads, t.loadsOf(k))
	return v
}

func (t *terms) constant(k uint32) value { return t.value(term{op: termConst, k: k}) }

func (t *terms) unknown() value {
	return t.value(term{op: termUnknown, k: uint32(len(t.of))})
}

// loadsOf is the set of loads that a term is made of.
func (t *terms) loadsOf(k term) loadSet {
	switch k.op {
	case termConst, termUnknown, termUnread:
		return nil
	}
	var s loadSet
	if k.op <= 0xff && k.op&classMask <= classLdx {
		s = s.with(t.loadIndex(load{k.op, k.k}))
		if k.op&modeMask == modeInd {
			s = s.union(t.loads[k.a])
		}
		return s
	}
	return s.union(t.loads[k.a]).union(t.loads[k.b])
}

func (t *terms) loadIndex(f load) int {
	i, ok := t.seen[f]
	if !ok {
		i = len(t.seen)
		t.seen[f] = i
	}
	return i
}

// A loadSet is a set of numbered loads.
type loadSet []uint64

func (s loadSet) with(i int) loadSet {
	if i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 {
		return s
	}
	c := make(loadSet, max(len(s), i/64+1))
	copy(c, s)
	c[i/64] |= 1 << (i % 64)
	return c
}

func (s loadSet) union(o loadSet) loadSet {
	switch {
	case s.contains(o):
		return s
	case o.contains(s):
		return o
	}
	c := make(loadSet, max(len(s), len(o)))
	copy(c, s)
	for i, w := range o {
		c[i] |= w
	}
	return c
}

func (s loadSet) contains(o loadSet) bool {
	for i, w := range o {
		if w != 0 && (i >= len(s) || w&^s[i] != 0) {
			return false
		}
	}
	return true
}

func (s loadSet) meets(o loadSet) bool {
	for i := range min(len(s), len(o)) {
		if s[i]&o[i] != 0 {
			return true
		}
	}
	return false
}

// A fact is what the tests on a path have established about one value.
type fact struct {
	about  value
	lo, hi uint32   // it lies between, both included
	zeros  uint32   // bits that are 0
	ones   uint32   // bits that are 1
	not    []uint32 // values that it does not have; sorted
	some   []uint32 // masks of which at least one bit is 1; sorted
}

// learn is the fact after a jump on k has gone the way of yes.
func (f fact) learn(jump uint16, k uint32, yes bool) fact {
	switch jump & jmpMask {
	case jmpJeq:
		if yes {
			f.lo, f.hi = k, k
		} else {
			f.not = insert(f.not, k)
		}
	case jmpJgt:
		if yes {
			f.lo = max(f.lo, k+1)
		} else {
			f.hi = min(f.hi, k)
		}
	case jmpJge:
		if yes {
			f.lo = max(f.lo, k)
		} else {
			f.hi = min(f.hi, k-1)
		}
	case jmpJset:
		switch {
		case !yes:
			f.zeros |= k
		case k&(k-1) == 0:
			f.ones |= k
		default:
			f.some = insert(f.some, k)
		}
	}
	for f.lo < f.hi && slices.Contains(f.not, f.lo) {
		f.lo++
	}
	for f.lo < f.hi && slices.Contains(f.not, f.hi) {
		f.hi--
	}
	return f
}

// maxListed bounds the lists of a fact; what does not fit is forgotten.
const maxListed = 32

func insert(list []uint32, k uint32) []uint32 {
	i, found := slices.BinarySearch(list, k)
	if found || len(list) >= maxListed {
		return list
	}
	return slices.Insert(slices.Clone(list), i, k)
}

// A verdict on a jump that the facts may have decided.
type decision uint8

const (
	open decision = iota
	always
	never
)

func decided(yes bool) decision {
	if yes {
		return always
	}
	return never
}

// decide says whether a jump on k is decided.
func (f fact) decide(jump uint16, k uint32) decision {
	switch jump & jmpMask {
	case jmpJeq:
		switch {
		case f.lo == f.hi:
			return decided(f.lo == k)
		case k < f.lo || k > f.hi || k&f.zeros != 0 || ^k&f.ones != 0 || slices.Contains(f.not, k):
			return never
		case slices.ContainsFunc(f.some, func(m uint32) bool { return k&m == 0 }):
			return never
		}
	case jmpJgt:
		switch {
		case f.lo > k:
			return always
		case f.hi <= k:
			return never
		}
	case jmpJge:
		switch {
		case f.lo >= k:
			return always
		case f.hi < k:
			return never
		}
	case jmpJset:
		switch {
		case f.lo == f.hi:
			return decided(f.lo&k != 0)
		case f.ones&k != 0:
			return always
		case k&^f.zeros == 0 || k&bitsUpTo(f.hi) == 0:
			return never
		case slices.ContainsFunc(f.some, func(m uint32) bool { return m&^k == 0 }):
			return always
		}
	}
	return open
}

// bitsUpTo are the bits that values up to hi can have.
func bitsUpTo(hi uint32) uint32 {
	hi |= hi >> 1
	hi |= hi >> 2
	hi |= hi >> 4
	hi |= hi >> 8
	return hi | hi>>16
}

// outset is what is known of any value before a test.
func (t *terms) outset(v value) fact {
	f := fact{about: v, hi: 0xffffffff}
	k := t.of[v]
	switch {
	case k.op == termConst:
		f.lo, f.hi = k.k, k.k
	case k.op >= termCompare:
		f.hi = 1
	case k.op == opLdH && k.k < skfLLOff, k.op == opLdIndH:
		f.hi = 0xffff
	case k.op == opLdB && k.k < skfLLOff, k.op == opLdIndB:
		f.hi = 0xff
	case k.op == opAnd && t.of[k.b].op == termConst:
		f.hi = t.of[k.b].k
		f.zeros = ^f.hi
	case k.op == classAlu|aluLsh && t.of[k.b].op == termConst:
		by := t.of[k.b].k & 31
		if hi := uint64(t.outset(k.a).hi) << by; hi <= 0xffffffff {
			f.hi, f.zeros = uint32(hi), 1<<by-1
		}
	}
	return f
}

// key adds the fact to a key that is equal for equal facts.
func (f fact) key(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(f.about))
	for _, w := range []uint32{f.lo, f.hi, f.zeros, f.ones, uint32(len(f.not)), uint32(len(f.some))} {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	for _, list := range [][]uint32{f.not, f.some} {
		for _, w := range list {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
	}
	return b
}
