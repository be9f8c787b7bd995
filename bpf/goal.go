package bpf

import "slices"

// A goal is a scope as something to be proved: it holds when what is known of
// a frame leaves no other possibility than that Scope.Match is true.
type goal struct {
	Prefix
	destinations []destination
}

// A place is where an address stands in a frame.
type place struct {
	off   uint32
	words int
}

// places is a set of a goal's destinations, by their numbers.
type places uint32

// A destination is where a frame's may stand, with the addresses that are the
// jail's.
type destination struct {
	place
	set []addrRange
}

func newGoal(p Prefix) goal {
	g := goal{Prefix: p, destinations: make([]destination, 0, 3*(maxTags+1))}
	for tags := range uint32(maxTags + 1) {
		net := uint32(p.layout.netOff) + 4*tags
		g.destinations = append(g.destinations, destination{place{net + 16, 1}, p.v4},
			destination{place{net + 24, 4}, p.v6}, destination{place{net + 24, 1}, p.v4}) // the last is ARP's
	}
	return g
}

// settle notes what a place that several ways lead to can no longer tell from
// the values that they have in common: which destinations have been read far
// enough (a frame that ends before that is not in scope, multicast or not), and
// that all but a tag in metadata has been tested.
func (g goal) settle(k *knowledge) {
	for i := range g.destinations {
		if g.settled(k, i) {
			k.settled |= 1 << i
		}
	}
	k.untagged = g.untagged(k)
}

func (g goal) untagged(k *knowledge) bool { return k.untagged || g.inScope(k, false) }

func (g goal) settled(k *knowledge, i int) bool {
	d := &g.destinations[i]
	return k.settled&(1<<i) != 0 || d.settled(k, box{words: d.words})
}

// settledAt is settled for the destination at a place, which must be one of the goal's.
func (g goal) settledAt(k *knowledge, p place) bool {
	i := slices.IndexFunc(g.destinations, func(d destination) bool { return d.place == p })
	return i >= 0 && g.settled(k, i)
}

func (d *destination) settled(k *knowledge, known box) bool {
	if overlap(d.set, known) != overlapSome || k.minLen >= d.off+4*uint32(d.words) {
		return true
	}
	word := d.off + 4*uint32(known.n)
	if k.minLen < word+4 {
		return false
	}
	for _, s := range k.of(whole(load{opLdW, word})) {
		r := addrRange{known.with(s.lo).span().lo, known.with(s.hi).span().hi}
		if overlapRange(d.set, r) == overlapSome && (s.lo != s.hi || !d.settled(k, known.with(s.lo))) {
			return false
		}
	}
	return true
}

func (g goal) holds(k *knowledge) bool {
	if !g.view.Live {
		return g.untagged(k)
	}
	tagged := k.of(whole(load{opLdW, adVlanTagged}))
	switch {
	case isOnly(tagged, 0):
		return g.untagged(k)
	case !tagged.has(0):
		return g.vlan(k, load{opLdW, adVlanTag}) && g.inScope(k, true)
	}
	return g.scope.VLANs.Any && g.inScope(k, true) // whether tagged or not
}

// inScope reports whether a frame must be in scope that has a tag in metadata,
// or has none.
func (g goal) inScope(k *knowledge, metadata bool) bool {
	return g.link(k, g.etherType(), uint32(g.layout.netOff), g.tagsInFrame(metadata))
}

// link looks at the protocol, and at what must hold for each that is possible.
func (g goal) link(k *knowledge, etherType load, net uint32, tags int) bool {
	full := g.scope.Policy == Full
	switch {
	case g.layout.family:
		return k.of(whole(load{opLdW, 0})).each(func(family uint32) bool {
			if family == familyWord(g.view.LinkType, familyIPv4) {
				return g.ipv4(k, net)
			}
			return full && g.ipv6(k, net) && slices.ContainsFunc(familiesIPv6, func(f uint32) bool {
				return family == familyWord(g.view.LinkType, f)
			})
		})

	case !g.layout.hasEtherType():
		return k.of(subject{load{opLdB, net}, 0xf0}).each(func(version uint32) bool {
			return version == 0x40 && g.ipv4(k, net) || version == 0x60 && full && g.ipv6(k, net)
		})
	}
	return k.of(whole(etherType)).each(func(proto uint32) bool {
		switch proto {
		case etherIPv4:
			return g.ipv4(k, net)
		case etherIPv6:
			return full && g.ipv6(k, net)
		case etherARP, etherRARP:
			return full && g.arp(k, net)
		case etherCTag, etherSTag:
			return tags > 0 && g.vlan(k, load{opLdH, net}) && g.link(k, load{opLdH, net + 2}, net+4, tags-1)
		}
		return false
	})
}

func (g goal) vlan(k *knowledge, tci load) bool {
	return g.scope.VLANs.Any || k.of(subject{tci, 0xfff}).each(func(id uint32) bool {
		return g.scope.VLANs.Has(uint16(id))
	})
}

func (g goal) ipv4(k *knowledge, net uint32) bool {
	return g.hosts(k, g.v4, groupRanges(1), net+12, net+16, 1)
}

func (g goal) ipv6(k *knowledge, net uint32) bool {
	return g.hosts(k, g.v6, groupRanges(4), net+8, net+24, 4)
}

func (g goal) hosts(k *knowledge, set, group []addrRange, src, dst uint32, words int) bool {
	switch {
	case inSet(k, set, src, box{words: words}), inSet(k, set, dst, box{words: words}):
		return true
	case g.scope.Policy == ClassicHost:
		return false
	case g.layout.mac:
		groupBit := subject{load{opLdB, 0}, 1}
		return !k.of(groupBit).has(0) && g.settledAt(k, place{dst, words})
	case g.layout.pktType.op != 0:
		return g.settledAt(k, place{dst, words}) && k.of(whole(g.layout.pktType)).each(func(t uint32) bool { return t == pktMulticast || t == pktBroadcast })
	}
	return inSet(k, mergeRanges(set, group, words), dst, box{words: words})
}

func (g goal) arp(k *knowledge, net uint32) bool {
	one := box{words: 1}
	if inSet(k, g.v4, net+14, one) || inSet(k, g.v4, net+24, one) {
		return true
	}
	if !g.settledAt(k, place{net + 24, 1}) {
		return false
	}
	if g.layout.mac {
		return isOnly(k.of(whole(load{opLdW, 2})), 0xffffffff) && isOnly(k.of(whole(load{opLdH, 0})), 0xffff)
	}
	return isOnly(k.of(whole(g.layout.pktType)), pktBroadcast)
}

// inSet reports whether an address at off that begins with the words of known
// must be in set.
func inSet(k *knowledge, set []addrRange, off uint32, known box) bool {
	switch overlap(set, known) {
	case overlapAll:
		return true
	case overlapNone:
		return false
	}
	word := k.of(whole(load{opLdW, off + 4*uint32(known.n)}))
	for _, s := range word {
		if s.lo == s.hi && known.n+1 < known.words {
			if !inSet(k, set, off, known.with(s.lo)) {
				return false
			}
			continue
		}
		r := addrRange{known.with(s.lo).span().lo, known.with(s.hi).span().hi}
		if overlapRange(set, r) != overlapAll {
			return false
		}
	}
	return len(word) > 0
}

// whole is all bits of a load.
func whole(f load) subject { return subject{f, 0xffffffff} }

func isOnly(s spans, v uint32) bool { return len(s) == 1 && s[0] == span{v, v} }
