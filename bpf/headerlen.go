package bpf

import xbpf "golang.org/x/net/bpf"

// First byte of an IPv4 header without options, and the header's length (RFC 791, 3.1).
const (
	plainIPv4    = 0x45
	plainIPv4Len = 20
)

// apartPlainIPv4 is the graph with a way of its own for IPv4 headers without options, which are
// nearly all: there the length is known, and what follows the header is at a fixed place.
//
// It is more instructions and less time: Linux translates a load from a fixed place into a few
// machine instructions, and one from a place that the program computes into a call
// (convert_bpf_ld_abs in net/core/filter.c).
func (b *block) apartPlainIPv4() *block {
	live := b.liveness()
	done := make(map[*block]*block)
	var visit func(b *block) *block
	visit = func(b *block) *block {
		if b.returns() {
			return b
		}
		if c, ok := done[b]; ok {
			return c
		}
		c := *b
		c.yes, c.no = visit(b.yes), visit(b.no)
		after, _ := effects(b.last)
		done[b] = c.splitAtHeaderLength(after | live[b.yes] | live[b.no])
		return done[b]
	}
	return visit(b)
}

// splitAtHeaderLength makes two ways of what follows a load of the header's length, if there
// is one and A is free for a test. after are the registers that count at the block's end.
func (b *block) splitAtHeaderLength(after regs) *block {
	for i, in := range b.body {
		if in.Op != opLdxMsh || liveBefore(b.body[i:], after)&regA != 0 {
			continue
		}
		plain, other := *b, *b
		plain.body = append([]xbpf.RawInstruction{ins(opLdxImm, plainIPv4Len)}, b.body[i+1:]...)
		other.body = b.body[i:]
		test := &block{last: ins(opJeq, plainIPv4), yes: &plain, no: &other, forget: b.forget}
		return test.behind(append(b.body[:i:i], ins(opLdB, in.K))...)
	}
	return b
}
