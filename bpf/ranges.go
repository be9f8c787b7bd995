package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sort"
)

// An addr is an address as the machine loads it: big-endian 32-bit words, one
// for IPv4 (the rest is 0) and four for IPv6.
type addr [4]uint32

func (a addr) compare(b addr) int { return slices.Compare(a[:], b[:]) }

// An addrRange is all addresses from lo to hi, both included.
type addrRange struct{ lo, hi addr }

// ranges turns the scope's prefixes into sorted ranges of which no two touch.
func (s Scope) ranges() (v4, v6 []addrRange) {
	for _, p := range s.Addrs {
		if p.Addr().Unmap().Is4() {
			v4 = append(v4, prefixRange(p, 1))
		} else {
			v6 = append(v6, prefixRange(p, 4))
		}
	}
	return merge(v4, 1), merge(v6, 4)
}

// groupRanges are the network-level destinations of multicast and broadcast,
// for link types that have no link-level ones: 224.0.0.0/4 (RFC 5771),
// 255.255.255.255 (RFC 919), ff00::/8 (RFC 4291).
func groupRanges(words int) []addrRange {
	if words == 1 {
		return []addrRange{
			{addr{0xe0000000}, addr{0xefffffff}},
			{addr{0xffffffff}, addr{0xffffffff}},
		}
	}
	return []addrRange{{addr{0xff000000}, addr{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}}
}

func prefixRange(p netip.Prefix, words int) addrRange {
	var bytes []byte
	bits := p.Bits()
	if words == 1 {
		if p.Addr().Is4In6() {
			bits -= 96
		}
		b := p.Addr().Unmap().As4()
		bytes = b[:]
	} else {
		b := p.Addr().As16()
		bytes = b[:]
	}
	var r addrRange
	for i := range words {
		w := binary.BigEndian.Uint32(bytes[4*i:])
		free := min(max(32*(i+1)-bits, 0), 32)
		host := uint32(1<<free - 1)
		r.lo[i], r.hi[i] = w&^host, w|host
	}
	return r
}

func merge(set []addrRange, words int) []addrRange {
	slices.SortFunc(set, func(a, b addrRange) int { return a.lo.compare(b.lo) })
	merged := set[:0]
	for _, r := range set {
		if n := len(merged); n > 0 && r.lo.compare(merged[n-1].hi.next(words)) <= 0 {
			if r.hi.compare(merged[n-1].hi) > 0 {
				merged[n-1].hi = r.hi
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// mergeRanges is the union of two sets.
func mergeRanges(a, b []addrRange, words int) []addrRange {
	return merge(slices.Concat(a, b), words)
}

// next is the address behind a, or a itself if there is none.
func (a addr) next(words int) addr {
	b := a
	for i := words - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b
		}
	}
	return a
}

// A box is what is known of an address of so many words when its first n words
// have been read.
type box struct {
	known addr
	n     int
	words int
}

func (b box) with(w uint32) box {
	b.known[b.n] = w
	b.n++
	return b
}

// span is the range of all addresses in b.
func (b box) span() addrRange {
	r := addrRange{b.known, b.known}
	for i := b.n; i < b.words; i++ {
		r.lo[i], r.hi[i] = 0, 0xffffffff
	}
	return r
}

type overlapping uint8

const (
	overlapNone overlapping = iota // no address of the box is in the set
	overlapSome
	overlapAll // all are
)

// overlap compares a box with a set of merged ranges.
func overlap(set []addrRange, b box) overlapping {
	return overlapRange(set, b.span())
}

func overlapRange(set []addrRange, r addrRange) overlapping {
	i := sort.Search(len(set), func(i int) bool { return set[i].hi.compare(r.lo) >= 0 })
	switch {
	case i == len(set) || set[i].lo.compare(r.hi) > 0:
		return overlapNone
	case set[i].lo.compare(r.lo) <= 0 && set[i].hi.compare(r.hi) >= 0:
		return overlapAll
	default:
		return overlapSome
	}
}
