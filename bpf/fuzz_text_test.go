package bpf

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	xbpf "golang.org/x/net/bpf"
)

// shown is p without what -d leaves out.
func shown(p Program) Program {
	p = slices.Clone(p)
	for i := range p {
		if !isBranch(p[i].Op) {
			p[i].Jt, p[i].Jf = 0, 0
		}
		if !strings.Contains(forms[p[i].Op].operand, "%") {
			p[i].K = 0
		}
	}
	return p
}

// FuzzPrintedProgramsParse reads its input as instructions of 8 bytes.
func FuzzPrintedProgramsParse(f *testing.F) {
	seed := func(p Program) {
		var b []byte
		for _, ins := range p {
			b = binary.LittleEndian.AppendUint16(b, ins.Op)
			b = append(b, ins.Jt, ins.Jf)
			b = binary.LittleEndian.AppendUint32(b, ins.K)
		}
		f.Add(b)
	}
	ret := xbpf.RawInstruction{Op: opRetA}
	for op := range uint16(256) {
		for _, k := range []uint32{7, adVlanTag} {
			seed(Program{{Op: op, Jt: 0, Jf: 1, K: k}, {Op: opRetK, Jt: 3, K: k}, ret})
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Program
		for ; len(b) >= 8; b = b[8:] {
			p = append(p, xbpf.RawInstruction{Op: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3],
				K: binary.LittleEndian.Uint32(b[4:])})
		}
		if len(p) == 0 {
			return
		}
		same := func(text string, want Program) {
			t.Helper()
			if got, err := ParseProgram(text); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v prints as\n%sand is read as %v, %v", want, text, got, err)
			}
		}
		same(p.C(), p)
		same(p.Decimal(), p)
		if p.Validate(FreeBSD) == nil || p.Validate(Linux) == nil {
			same(p.Text(), shown(p))
		}
	})
}

func FuzzParseProgramNeverPanics(f *testing.F) {
	for _, text := range []string{"0", "1\n6 0 0 0\n", "{ 0x6, 0, 0, 0x00040000 },\n", "(000) ret      #0\n",
		"(000) ld       [vlan_tci]\n(001) jeq      #0x800           jt 2\tjf 3\n", "(000) unimp    0x81\n",
		"(000) ldxb     4*([14]&0xf)\n(001) ld       [x + -1]\n(002) ja       3\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProgram(text)
		if err != nil {
			return
		}
		again, err := ParseProgram(p.Decimal())
		if err != nil || !slices.Equal(again, p) {
			t.Errorf("%q is %v, then %v, %v", text, p, again, err)
		}
	})
}
