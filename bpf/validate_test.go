package bpf

import (
	"errors"
	"strings"
	"testing"

	xbpf "golang.org/x/net/bpf"
)

func TestTheSystemsRefuseWhatTheyDocument(t *testing.T) {
	ret := xbpf.RawInstruction{Op: opRetA}
	long := func(n int) Program {
		p := make(Program, n)
		p[n-1] = ret
		return p
	}
	const both, linuxOnly = "both", "linux"
	for _, c := range []struct {
		name   string
		p      Program
		who    string // refuses it
		index  int
		reason string
	}{
		{"ret", Program{ret}, "", 0, ""},
		{"ignored fields", Program{{Op: opTax, Jt: 9, Jf: 9, K: 9}, {Op: opJa, Jt: 9, Jf: 9}, {Op: opRetA, Jt: 9, K: 9}}, "", 0, ""},
		{"no instruction", Program{}, linuxOnly, -1, "no instructions"},
		{"unknown opcode", Program{ret, {Op: 0x82}, ret}, both, 1, "no such opcode"},
		{"opcode over 255", Program{{Op: 0x100 | opLdW}, ret}, both, 0, "no such opcode"},
		{"ret x", Program{{Op: classRet | srcX}}, both, 0, "no such opcode"},
		{"no ret at the end", Program{ret, {Op: opTax}}, both, 1, "has to be a ret"},
		{"ja to the end", Program{{Op: opJa, K: 1}, ret}, both, 0, "jumps over 1 instructions, of 1"},
		{"ja backwards", Program{ret, {Op: opJa, K: 0xffffffff}, ret}, both, 1, "jumps over 4294967295"},
		{"jt to the end", Program{{Op: opJeq, Jt: 1}, ret}, both, 0, "jumps over 1"},
		{"jf to the end", Program{{Op: opJset | srcX, Jf: 255}, ret}, both, 0, "jumps over 255"},
		{"division by 0", Program{{Op: classAlu | aluDiv}, ret}, both, 0, "division by 0"},
		{"modulo 0", Program{{Op: classAlu | aluMod}, ret}, both, 0, "division by 0"},
		{"division by x", Program{{Op: classAlu | aluDiv | srcX}, ret}, "", 0, ""},
		{"shift by 32", Program{{Op: classAlu | aluLsh, K: 32}, ret}, linuxOnly, 0, "shift"},
		{"shift by 31", Program{{Op: classAlu | aluRsh, K: 31}, ret}, "", 0, ""},
		{"M[16]", Program{{Op: opSt, K: 16}, ret}, both, 0, "no such memory cell"},
		{"M[16], read", Program{{Op: opLdxMem, K: 16}, ret}, both, 0, "no such memory cell"},
		{"known metadata", Program{{Op: opLdB, K: adVlanTPID}, ret}, "", 0, ""},
		{"unknown metadata", Program{{Op: opLdB, K: adMax}, ret}, linuxOnly, 0, "no metadata"},
		{"between metadata", Program{{Op: opLdW, K: adMark + 1}, ret}, linuxOnly, 0, "no metadata"},
		{"msh of no metadata", Program{{Op: opLdxMsh, K: adMax}, ret}, "", 0, ""},
		{"network header", Program{{Op: opLdW, K: skfNetOff}, ret}, "", 0, ""},
		{"unwritten cell", Program{{Op: opLdMem, K: 3}, ret}, linuxOnly, 0, "M[3]"},
		{"cell written on one path", Program{{Op: opJeq, Jf: 1}, {Op: opSt, K: 3}, {Op: opLdxMem, K: 3}, ret}, linuxOnly, 2, "M[3]"},
		{"cell written on both", Program{{Op: opJeq, Jf: 2}, {Op: opSt, K: 3}, {Op: opJa, K: 1}, {Op: opStx, K: 3}, {Op: opLdMem, K: 3}, ret}, "", 0, ""},
		{"unwritten cell behind a ret", Program{ret, {Op: opLdMem, K: 3}, ret}, linuxOnly, 1, "M[3]"},
		{"unwritten cell behind a jump", Program{{Op: opJa, K: 1}, {Op: opLdMem, K: 3}, ret}, "", 0, ""},
		{"512", long(512), "", 0, ""},
		{"4096", long(4096), "freebsd", -1, "4096 instructions; freebsd takes 512"},
		{"4097", long(4097), both, -1, "4097 instructions"},
	} {
		for _, d := range []Dialect{Linux, FreeBSD} {
			err := c.p.Validate(d)
			if c.who != both && c.who != d.String() {
				if err != nil {
					t.Errorf("%s: %s: %v", c.name, d, err)
				}
				continue
			}
			var bad *ProgramError
			if !errors.As(err, &bad) || bad.Index != c.index || !strings.Contains(bad.Reason, c.reason) {
				t.Errorf("%s: %s: error %v, want instruction %d: %s", c.name, d, err, c.index, c.reason)
			}
		}
	}
}

func TestExactly49OpcodesAreKnown(t *testing.T) {
	n := 0
	for op := range 1 << 16 {
		if known(uint16(op)) {
			n++
		}
	}
	if n != 49 {
		t.Errorf("%d are", n)
	}
}
