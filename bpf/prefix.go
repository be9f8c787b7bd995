package bpf

import (
	"fmt"

	xbpf "golang.org/x/net/bpf"
)

// A Prefix is a scope made ready for one view of frames: the instructions that
// go before every user program.
type Prefix struct {
	scope  Scope
	view   View
	layout layout
	v4, v6 []addrRange
}

// Prefix makes the prefix for frames as v shows them.
func (s Scope) Prefix(v View) (Prefix, error) {
	l, ok := layouts[v.LinkType]
	if !ok {
		return Prefix{}, fmt.Errorf("no scope for frames of %v: known are %v", v.LinkType, LinkTypes())
	}
	if v.Live {
		switch v.LinkType {
		case Ethernet, Raw:
		case LinuxSLL2: // the header is not there yet
			l = layout{typeOff: 0, netOff: 0, pktType: load{opLdW, adPktType}}
		default:
			return Prefix{}, fmt.Errorf("no Linux packet socket shows frames of %v", v.LinkType)
		}
	}
	p := Prefix{scope: s, view: v, layout: l}
	p.v4, p.v6 = s.ranges()
	return p, nil
}

// graph is the prefix with its two ways out: accept for frames in scope,
// reject for all others.
func (p Prefix) graph(accept, reject *block) *block {
	if !p.view.Live {
		return p.link(&ways{accept: accept, reject: reject}, p.etherType(), p.layout.netOff, p.tagsInFrame(false))
	}
	// A tag in metadata is another network, where the same addresses may be
	// somebody else's.
	metadata := load{opLdW, adVlanTagged}
	if p.scope.VLANs.None() { // asked last, since most frames are not the jail's
		untagged := test(metadata, opJeq, 0, accept, reject)
		return p.link(&ways{accept: untagged, reject: reject}, p.etherType(), p.layout.netOff, 0)
	}
	ways := &ways{accept: accept, reject: reject}
	untagged := p.link(ways, p.etherType(), p.layout.netOff, p.tagsInFrame(false))
	tagged := p.link(ways, p.etherType(), p.layout.netOff, p.tagsInFrame(true))
	return test(metadata, opJeq, 0, untagged, p.vlan(ways, load{opLdW, adVlanTag}, tagged))
}

// tagsInFrame is how many VLAN tags a frame may have besides one in metadata.
//
// Of a cooked frame on a live socket one cannot know where a tag is: frames
// that are received show it, and frames that are sent may start behind it and
// still have its TPID for their protocol (packet_parse_headers in
// net/packet/af_packet.c, since Linux 6.10). So they may have none.
func (p Prefix) tagsInFrame(metadata bool) int {
	switch {
	case p.view.Live && p.view.LinkType == LinuxSLL2:
		return 0
	case metadata:
		return maxTags - 1
	}
	return maxTags
}

// ways are where the paths through a prefix end.
type ways struct {
	accept, reject *block
	many           *block // accept, if there is a tree
}

// after is accept for the leaves of a tree over set, and what comes behind it: if they are
// many, they go on as one.
func (w *ways) after(set []addrRange) *block {
	if len(set) < 2 {
		return w.accept
	}
	if w.many == nil {
		w.many = joined(w.accept, set)
	}
	return w.many
}

func joined(b *block, set []addrRange) *block {
	if len(set) < 2 {
		return b
	}
	c := *b
	c.forget = true
	return &c
}

// etherType is where the EtherType is found, if the view has one.
func (p Prefix) etherType() load {
	if p.view.Live && p.view.LinkType == LinuxSLL2 {
		return load{opLdW, adProtocol}
	}
	return load{opLdH, uint32(p.layout.typeOff)}
}

// link tests the protocol, with the network header at net and so many VLAN
// tags allowed in front of it.
func (p Prefix) link(w *ways, etherType load, net, tags int) *block {
	full := p.scope.Policy == Full
	switch {
	case p.layout.family:
		cases := []choice{{familyWord(p.view.LinkType, familyIPv4), p.ipv4(w, net)}}
		if full {
			ipv6 := p.ipv6(w, net)
			for _, family := range familiesIPv6 {
				cases = append(cases, choice{familyWord(p.view.LinkType, family), ipv6})
			}
		}
		return choose(load{opLdW, 0}.body(), cases, w.reject)

	case !p.layout.hasEtherType():
		cases := []choice{{0x40, p.ipv4(w, net)}}
		if full {
			cases = append(cases, choice{0x60, p.ipv6(w, net)})
		}
		return choose(append(load{opLdB, uint32(net)}.body(), ins(opAnd, 0xf0)), cases, w.reject)
	}

	cases := []choice{{etherIPv4, p.ipv4(w, net)}}
	if full {
		arp := p.arp(w, net)
		cases = append(cases, choice{etherIPv6, p.ipv6(w, net)}, choice{etherARP, arp}, choice{etherRARP, arp})
		if len(p.v4) == 0 { // a jail with IPv6 alone
			cases[0], cases[1] = cases[1], cases[0]
		}
	}
	if tags > 0 && !p.scope.VLANs.None() {
		inner := p.link(w, load{opLdH, uint32(net + 2)}, net+4, tags-1)
		inner = p.vlan(w, load{opLdH, uint32(net)}, inner)
		cases = append(cases, choice{etherCTag, inner}, choice{etherSTag, inner})
	}
	return choose(etherType.body(), cases, w.reject)
}

// vlan goes on to inner if the scope has the VLAN whose TCI is at tci.
func (p Prefix) vlan(w *ways, tci load, inner *block) *block {
	if p.scope.VLANs.Any {
		return inner
	}
	var ids []segment
	for _, id := range p.scope.VLANs.IDs {
		ids = append(ids, segment{uint32(id), uint32(id), inner})
	}
	tree := decide(ids, 0, 0xfff, w.reject)
	return tree.behind(append(tci.body(), ins(opAnd, 0xfff))...)
}

func (p Prefix) ipv4(w *ways, net int) *block {
	return p.hosts(w, p.v4, groupRanges(1), net+12, net+16, 1)
}

func (p Prefix) ipv6(w *ways, net int) *block {
	return p.hosts(w, p.v6, groupRanges(4), net+8, net+24, 4)
}

// hosts is `host J or multicast or broadcast`, as Scope.matchHosts has it.
func (p Prefix) hosts(w *ways, set, group []addrRange, src, dst, words int) *block {
	dstSet, last, accept := set, w.reject, w.after(set)
	switch {
	case p.scope.Policy == ClassicHost:
	case p.layout.mac:
		last = test(load{opLdB, 0}, opJset, 1, accept, w.reject)
	case p.layout.pktType.op != 0:
		last = choose(p.layout.pktType.body(), []choice{{pktMulticast, accept}, {pktBroadcast, accept}}, w.reject)
	default:
		dstSet = mergeRanges(set, group, words)
	}
	dstTree := address(dst, words, dstSet, w.after(dstSet), joined(last, dstSet))
	return address(src, words, set, accept, joined(dstTree, set))
}

// arp is `host J or broadcast`, as matchARP has it.
func (p Prefix) arp(w *ways, net int) *block {
	accept := w.after(p.v4)
	broadcast := test(p.layout.pktType, opJeq, pktBroadcast, accept, w.reject)
	if p.layout.mac {
		broadcast = test(load{opLdW, 2}, opJeq, 0xffffffff,
			test(load{opLdH, 0}, opJeq, 0xffff, accept, w.reject), w.reject)
	}
	target := address(net+24, 1, p.v4, accept, joined(broadcast, p.v4))
	return address(net+14, 1, p.v4, accept, joined(target, p.v4))
}

// test is one load and one jump on what it finds.
func test(f load, jump uint16, k uint32, yes, no *block) *block {
	return (&block{last: ins(jump, k), yes: yes, no: no, scope: true}).behind(f.body()...)
}

// A choice is a value and where to go if it is found.
type choice struct {
	value uint32
	to    *block
}

// choose tries values one by one: for a handful, the most frequent first.
func choose(body []xbpf.RawInstruction, cases []choice, otherwise *block) *block {
	for i := len(cases) - 1; i >= 0; i-- {
		otherwise = &block{last: ins(opJeq, cases[i].value), yes: cases[i].to, no: otherwise, scope: true}
	}
	return otherwise.behind(body...)
}

func (f load) body() []xbpf.RawInstruction { return []xbpf.RawInstruction{ins(f.op, f.off)} }
