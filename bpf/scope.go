package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Policy says which frames to and from a jail's addresses are its own.
type Policy uint8

const (
	// Full is the default: Classic for IPv4, the same for IPv6 and its
	// multicast, and ARP and RARP about the jail's IPv4 addresses or broadcast.
	Full Policy = iota

	// Classic is the prefix of 2008: (ip and (host J or multicast or broadcast)).
	Classic

	// ClassicHost is (ip and host J): Classic without what is sent to all. It is
	// what the conformance vectors use where libpcap knows no multicast.
	ClassicHost
)

var policyNames = []string{Full: "full", Classic: "classic", ClassicHost: "classic-host"}

func (p Policy) String() string { return policyNames[p] }

// ParsePolicy is the inverse of Policy.String.
func ParsePolicy(name string) (Policy, error) {
	if i := slices.Index(policyNames, name); i >= 0 {
		return Policy(i), nil
	}
	return 0, fmt.Errorf("unknown policy %q: known are classic and full", name)
}

// VLANs says which 802.1Q and 802.1ad networks a jail is on, besides the
// untagged one. The zero value is none.
type VLANs struct {
	Any bool
	IDs []uint16 // 0 to 4095; of two tags both must be listed
}

// Has reports whether frames tagged with the VLAN identifier id may be in scope.
func (v VLANs) Has(id uint16) bool { return v.Any || slices.Contains(v.IDs, id) }

// None reports whether no tagged frame is in scope.
func (v VLANs) None() bool { return !v.Any && len(v.IDs) == 0 }

// ParseVLANs reads "none", "any" or identifiers separated by commas.
func ParseVLANs(text string) (VLANs, error) {
	switch text {
	case "none", "":
		return VLANs{}, nil
	case "any":
		return VLANs{Any: true}, nil
	}
	var v VLANs
	for field := range strings.SplitSeq(text, ",") {
		id, err := strconv.ParseUint(strings.TrimSpace(field), 10, 16)
		if err != nil || id > 4095 {
			return VLANs{}, fmt.Errorf("bad VLAN %q: want none, any, or identifiers from 0 to 4095 separated by commas", field)
		}
		v.IDs = append(v.IDs, uint16(id))
	}
	slices.Sort(v.IDs)
	v.IDs = slices.Compact(v.IDs)
	return v, nil
}

// A Scope is what a jail may see: a predicate over frames. The zero Scope has
// no address, so that only multicast and broadcast are in it.
type Scope struct {
	Addrs  []netip.Prefix // IPv4 and IPv6; a single address is a /32 or /128
	Policy Policy
	VLANs  VLANs
}

// ParseAddr reads ADDR or ADDR/LEN. Host bits behind LEN are an error, since
// it is not clear which of the two was meant.
func ParseAddr(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("bad address %q: want an IPv4 or IPv6 address, or a prefix as 10.0.0.0/24", text)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("bad prefix %q: want an IPv4 or IPv6 prefix as 10.0.0.0/24", text)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("bad prefix %q: it has bits set behind its length; %s or %s is meant", text,
			prefix.Masked(), prefix.Addr())
	}
	return prefix, nil
}

// Match is the specification of scopes: whether frame, which starts with a
// header of type lt, is in s. The frame is as a capture file holds it, with
// VLAN tags in place. What is not recognised, and what is cut off before the
// decision, is out of scope.
func (s Scope) Match(lt LinkType, frame []byte) bool {
	l, ok := layouts[lt]
	if !ok {
		return false
	}
	proto, ok := l.protocol(lt, frame)
	if !ok {
		return false
	}
	net := l.netOff
	for tags := 0; proto == etherCTag || proto == etherSTag; tags++ {
		tci, ok := half(frame, net)
		if tags == maxTags || !ok || !s.VLANs.Has(tci&0xfff) {
			return false
		}
		if proto, ok = half(frame, net+2); !ok {
			return false
		}
		net += 4
	}

	v4, v6 := s.ranges()
	switch proto {
	case etherIPv4:
		return s.matchHosts(v4, l, frame, net+12, net+16)
	case etherIPv6:
		return s.Policy == Full && s.matchHosts(v6, l, frame, net+8, net+24)
	case etherARP, etherRARP:
		return s.Policy == Full && matchARP(v4, l, frame, net)
	}
	return false
}

// maxTags is how many VLAN tags a frame in scope may have.
const maxTags = 2

// protocol finds the EtherType of what is behind the link-level header.
func (l layout) protocol(lt LinkType, frame []byte) (uint16, bool) {
	switch {
	case l.hasEtherType():
		return half(frame, l.typeOff)
	case l.family:
		w, ok := word(frame, l.typeOff)
		if w == familyWord(lt, familyIPv4) {
			return etherIPv4, ok
		}
		isIPv6 := func(family uint32) bool { return w == familyWord(lt, family) }
		return etherIPv6, ok && slices.ContainsFunc(familiesIPv6, isIPv6)
	default: // Raw: the version is all there is
		if len(frame) == 0 {
			return 0, false
		}
		switch frame[0] >> 4 {
		case 4:
			return etherIPv4, true
		case 6:
			return etherIPv6, true
		}
		return 0, false
	}
}

// matchHosts is `host J or multicast or broadcast`, for addresses at src and dst.
func (s Scope) matchHosts(set []addrRange, l layout, frame []byte, src, dst int) bool {
	words := (dst - src) / 4
	dstSet := set
	if s.Policy != ClassicHost && !l.mac && l.pktType.op == 0 {
		dstSet = mergeRanges(set, groupRanges(words), words)
	}
	if in, whole := contains(set, frame, src, words); in || !whole {
		return in
	}
	if in, whole := contains(dstSet, frame, dst, words); in || !whole {
		return in
	}
	switch {
	case s.Policy == ClassicHost:
		return false
	case l.mac: // the group bit; broadcast has it too
		return frame[0]&1 != 0
	case l.pktType.op != 0:
		pktType, ok := l.pktType.read(frame)
		return ok && (pktType == pktBroadcast || pktType == pktMulticast)
	}
	return false // the destination was all there is
}

// matchARP is `host J or broadcast`, for ARP and RARP of IPv4 over Ethernet
// (RFC 826): the sender's and the target's protocol address.
func matchARP(set []addrRange, l layout, frame []byte, net int) bool {
	for _, off := range []int{net + 14, net + 24} {
		if in, whole := contains(set, frame, off, 1); in || !whole {
			return in
		}
	}
	if l.mac {
		return string(frame[:6]) == "\xff\xff\xff\xff\xff\xff"
	}
	pktType, ok := l.pktType.read(frame)
	return ok && pktType == pktBroadcast
}

// contains reports whether the address of so many 32-bit words at off is in
// set. It reads no more words than it needs to decide; whole is false if the
// frame ends before that.
func contains(set []addrRange, frame []byte, off, words int) (in, whole bool) {
	known := box{words: words}
	for {
		switch overlap(set, known) {
		case overlapNone:
			return false, true
		case overlapAll:
			return true, true
		}
		w, ok := word(frame, off+4*known.n)
		if !ok {
			return false, false
		}
		known = known.with(w)
	}
}

func half(frame []byte, off int) (uint16, bool) {
	if off+2 > len(frame) {
		return 0, false
	}
	return binary.BigEndian.Uint16(frame[off:]), true
}

func word(frame []byte, off int) (uint32, bool) {
	if off+4 > len(frame) {
		return 0, false
	}
	return binary.BigEndian.Uint32(frame[off:]), true
}

// Expr is the pcap expression (pcap-filter(7)) that means the same as s on
// frames of type lt, but for frames that are cut off inside a header. libpcap
// has no words for the VLANs of cooked frames: there it is the untagged part.
func (s Scope) Expr(lt LinkType) string {
	l := layouts[lt]
	untagged := s.exprUntagged(lt)
	if s.VLANs.None() || !l.mac {
		return untagged
	}
	// In an expression `vlan` moves the offsets of all that follows it, so
	// what is said of the outer tag comes first.
	expr := untagged
	for tag := maxTags - 1; tag >= 0; tag-- {
		expr = fmt.Sprintf("%s or (vlan and %s and (%s))", untagged, s.exprTag(l, tag), expr)
	}
	return expr
}

// exprTag tests a tag, outermost first: `vlan` would take 0x9100 for one too.
func (s Scope) exprTag(l layout, tag int) string {
	typeOff, tci := l.typeOff, l.netOff+4*tag
	if tag > 0 {
		typeOff = tci - 2
	}
	expr := fmt.Sprintf("link[%d:2] != 0x9100", typeOff)
	if s.VLANs.Any {
		return expr
	}
	var ids []string
	for _, id := range s.VLANs.IDs {
		ids = append(ids, fmt.Sprintf("link[%d:2] & 0xfff = %d", tci, id))
	}
	return expr + " and (" + strings.Join(ids, " or ") + ")"
}

func (s Scope) exprUntagged(lt LinkType) string {
	l := layouts[lt]
	var hosts4, hosts6 []string
	for _, p := range s.Addrs {
		test := "host " + p.Addr().String()
		if !p.IsSingleIP() {
			test = "net " + p.Masked().String()
		}
		if p.Addr().Is4() {
			hosts4 = append(hosts4, test)
		} else {
			hosts6 = append(hosts6, test)
		}
	}

	var group4, group6, broadcast []string
	switch {
	case s.Policy == ClassicHost:
	case l.mac:
		group4, group6, broadcast = []string{"multicast", "broadcast"}, []string{"multicast"}, []string{"broadcast"}
	case l.pktType.op != 0:
		field := fmt.Sprintf("link[%d:%d]", l.pktType.off, l.pktType.width())
		broadcast = []string{fmt.Sprintf("%s = %d", field, pktBroadcast)}
		group6 = []string{fmt.Sprintf("%s = %d", field, pktMulticast), broadcast[0]}
		group4 = group6
	default:
		group4 = []string{"dst net 224.0.0.0/4", "dst host 255.255.255.255"}
		group6 = []string{"dst net ff00::/8"}
	}

	expr := exprAnd("ip", append(hosts4, group4...))
	if s.Policy != Full {
		return expr
	}
	expr += " or " + exprAnd("ip6", append(hosts6, group6...))
	if l.hasEtherType() {
		expr += " or " + exprAnd("(arp or rarp)", append(hosts4, broadcast...))
	}
	return expr
}

// exprAnd is `proto and (a or b ...)`, which is false if there is nothing to
// choose from.
func exprAnd(proto string, choices []string) string {
	if len(choices) == 0 {
		return "(" + proto + " and 0 = 1)"
	}
	return fmt.Sprintf("(%s and (%s))", proto, strings.Join(choices, " or "))
}
