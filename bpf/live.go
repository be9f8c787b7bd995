package bpf

import (
	"errors"
	"fmt"

	xbpf "golang.org/x/net/bpf"
)

// ErrNotLive is wrapped by errors about user programs that cannot be asked of
// a live frame in the kernel, since they look at what is not there.
var ErrNotLive = errors.New("the kernel's frame does not have it")

// Live turns a program about frames in files into one that gives the same
// verdicts on what a Linux packet socket shows of them. Two things differ:
//
// On Ethernet a VLAN tag stands in metadata. Where the scope lets tagged
// frames through, the program gets a second half for them, in which all
// offsets behind the tag are 4 less.
//
// Of cooked frames (LinuxSLL2) there is no header yet; its fields are
// metadata too, but for the sender's address.
func Live(user Program, v View, vlans VLANs) (Program, error) {
	if !v.Live || len(user) == 0 {
		return user, nil
	}
	switch v.LinkType {
	case LinuxSLL2:
		return user.shift(cookedLoad)
	case Ethernet:
		if vlans.None() {
			return user, nil
		}
		tagged, err := user.shift(taggedLoad)
		if err != nil {
			return nil, err
		}
		ask := &block{last: ins(opJeq, 0), yes: user.start().graph(), no: tagged.start().graph()}
		return emit(ask.behind(ins(opLdW, adVlanTagged)), nil), nil
	}
	return user, nil
}

// A shifter is what a load from a frame in a file is on a live one: one or
// more instructions.
type shifter func(in xbpf.RawInstruction) ([]xbpf.RawInstruction, bool)

// shift is p with all its loads from the frame replaced.
func (p Program) shift(f shifter) (Program, error) {
	shifted, err := p.graph().mapBodies(func(body []xbpf.RawInstruction) ([]xbpf.RawInstruction, error) {
		var live []xbpf.RawInstruction
		for _, in := range body {
			if !loadsFrame(in) {
				live = append(live, in)
				continue
			}
			instead, ok := f(in)
			if !ok {
				return nil, fmt.Errorf("cannot filter live frames by %s: %w", Program{in}.Line(0), ErrNotLive)
			}
			live = append(live, instead...)
		}
		return live, nil
	})
	if err != nil {
		return nil, err
	}
	return emit(shifted, nil), nil
}

// loadsFrame reports whether the instruction looks at the frame or its length,
// and not at metadata that it asked for itself.
func loadsFrame(in xbpf.RawInstruction) bool {
	if in.Op&classMask > classLdx {
		return false
	}
	switch in.Op & modeMask {
	case modeImm, modeMem:
		return false
	case modeAbs:
		return in.K < skfLLOff
	}
	return true
}

// taggedLoad is a load from an Ethernet frame whose tag stands in metadata,
// and not at offset 12.
func taggedLoad(in xbpf.RawInstruction) ([]xbpf.RawInstruction, bool) {
	const tagOff, tagLen = 12, 4
	switch {
	case in.Op == opLdLen:
		return []xbpf.RawInstruction{in, ins(opAdd, tagLen)}, true
	case in.Op == opLdxLen:
		return nil, false
	case in.K >= tagOff+tagLen: // behind the tag, wherever X points to
		return []xbpf.RawInstruction{ins(in.Op, in.K-tagLen)}, true
	case in.Op&modeMask == modeInd:
		return nil, false
	case in.K+loadWidth(in.Op) <= tagOff:
		return []xbpf.RawInstruction{in}, true
	case in.Op == opLdxMsh:
		return nil, false
	}
	return fieldLoad(in, []field{
		{load{opLdH, tagOff}, adVlanTPID},
		{load{opLdH, tagOff + 2}, adVlanTag},
	})
}

// cookedLoad is a load from a cooked frame on a socket that shows what is
// behind the cooked header.
func cookedLoad(in xbpf.RawInstruction) ([]xbpf.RawInstruction, bool) {
	header := uint32(layouts[LinuxSLL2].netOff)
	switch {
	case in.Op == opLdLen:
		return []xbpf.RawInstruction{in, ins(opAdd, header)}, true
	case in.Op == opLdxLen:
		return nil, false
	case in.K >= header:
		return []xbpf.RawInstruction{ins(in.Op, in.K-header)}, true
	case in.Op&modeMask == modeInd || in.Op == opLdxMsh:
		return nil, false
	}
	return fieldLoad(in, []field{
		{load{opLdH, 0}, adProtocol},
		{load{opLdW, 4}, adIfindex},
		{load{opLdH, 8}, adHatype},
		{load{opLdB, 10}, adPktType},
	})
}

// A field is part of a header that is metadata on live frames.
type field struct {
	load
	metadata uint32
}

// fieldLoad is a load of a field, or of one byte of a 16-bit field.
func fieldLoad(in xbpf.RawInstruction, fields []field) ([]xbpf.RawInstruction, bool) {
	for _, f := range fields {
		whole := ins(opLdW, f.metadata)
		switch {
		case f.load == load{in.Op, in.K}:
			return []xbpf.RawInstruction{whole}, true
		case f.op == opLdH && in.Op == opLdB && in.K == f.off:
			return []xbpf.RawInstruction{whole, ins(classAlu|aluRsh, 8)}, true
		case f.op == opLdH && in.Op == opLdB && in.K == f.off+1:
			return []xbpf.RawInstruction{whole, ins(opAnd, 0xff)}, true
		}
	}
	return nil, false
}
