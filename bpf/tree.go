package bpf

import (
	"slices"
	"sort"
)

// address decides whether the address of so many words at off is in set: a
// balanced tree of comparisons for each word, with short chains for leaves, so
// that its cost grows with the logarithm of the number of addresses. A word is
// loaded only where the words before it have not decided.
func address(off, words int, set []addrRange, in, out *block) *block {
	return addressTree(off, box{words: words}, set, in, out)
}

// addressTree is the part of the tree for addresses that begin with the words
// of known; set has those ranges that overlap them.
func addressTree(off int, known box, set []addrRange, in, out *block) *block {
	switch overlap(set, known) {
	case overlapNone:
		return out
	case overlapAll:
		return in
	}
	var segments []segment
	for _, r := range wordRanges(set, known) {
		to := in
		if r.lo == r.hi { // the words behind this one may decide
			inside := known.with(r.lo)
			to = addressTree(off, inside, clip(set, inside), in, out)
		}
		segments = append(segments, segment{r.lo, r.hi, to})
	}
	tree := decide(segments, 0, 0xffffffff, out)
	return tree.behind(ins(opLdW, uint32(off+4*known.n)))
}

// A wordRange is the values from lo to hi of one word.
type wordRange struct{ lo, hi uint32 }

// wordRanges are the values of the next word for which some address is in set,
// sorted: either a single value, or a range for which all addresses are.
func wordRanges(set []addrRange, known box) []wordRange {
	var ranges []wordRange
	add := func(lo, hi uint32) {
		if n := len(ranges); lo <= hi && (n == 0 || ranges[n-1].hi < lo) {
			ranges = append(ranges, wordRange{lo, hi})
		}
	}
	i := known.n
	span := known.span()
	for _, r := range set {
		lo, hi := r.lo, r.hi
		if lo.compare(span.lo) < 0 {
			lo = span.lo
		}
		if hi.compare(span.hi) > 0 {
			hi = span.hi
		}
		first, last := uint64(lo[i]), uint64(hi[i])
		if overlapRange([]addrRange{r}, known.with(lo[i]).span()) != overlapAll {
			add(lo[i], lo[i])
			first++
		}
		partly := overlapRange([]addrRange{r}, known.with(hi[i]).span()) != overlapAll
		if partly && last > 0 {
			last--
		}
		if first <= last && !(partly && hi[i] == 0) {
			add(uint32(first), uint32(last))
		}
		if partly {
			add(hi[i], hi[i])
		}
	}
	return ranges
}

// clip is the part of set that overlaps the box: what is left of a sorted
// list.
func clip(set []addrRange, b box) []addrRange {
	span := b.span()
	from := sort.Search(len(set), func(i int) bool { return set[i].hi.compare(span.lo) >= 0 })
	to := sort.Search(len(set), func(i int) bool { return set[i].lo.compare(span.hi) > 0 })
	return set[from:to]
}

// A segment says where values from lo to hi lead.
type segment struct {
	lo, hi uint32
	to     *block
}

// decide is a balanced tree of comparisons of A with sorted segments, when A
// is known to lie between lo and hi; what is in no segment goes to out.
func decide(segments []segment, lo, hi uint32, out *block) *block {
	switch n := len(segments); {
	case n == 0:
		return out
	case n == 1:
		return decideOne(segments[0], lo, hi, out)
	case n <= mostInChain && allSingle(segments):
		return chain(segments, lo, hi, out)
	default:
		half := n / 2
		k := segments[half].lo
		return compare(opJge, k, decide(segments[half:], k, hi, out), decide(segments[:half], lo, k-1, out))
	}
}

// mostInChain is how many values are compared one by one at the leaves of a tree. CPUs foresee
// that most are not the one, and compare several in the time of one jump of a tree that they
// have not foreseen: with addresses that come as chance has it, that is half of the jumps.
const mostInChain = 8

func allSingle(segments []segment) bool {
	return !slices.ContainsFunc(segments, func(s segment) bool { return !s.single() })
}

// chain is decide by one comparison for each value.
func chain(segments []segment, lo, hi uint32, out *block) *block {
	if len(segments) == 1 {
		return decideOne(segments[0], lo, hi, out)
	}
	return compare(opJeq, segments[0].lo, segments[0].to, chain(segments[1:], lo, hi, out))
}

func decideOne(s segment, lo, hi uint32, out *block) *block {
	if s.single() && lo < hi {
		return compare(opJeq, s.lo, s.to, out)
	}
	to := s.to
	if s.hi < hi {
		to = compare(opJgt, s.hi, out, to)
	}
	if s.lo > lo {
		to = compare(opJge, s.lo, to, out)
	}
	return to
}

func (s segment) single() bool { return s.lo == s.hi }

func compare(jump uint16, k uint32, yes, no *block) *block {
	return &block{last: ins(jump, k), yes: yes, no: no, scope: true}
}
