package bpf

import (
	"encoding/binary"
	"slices"
	"testing"
)

func TestTheDialectsDifferWhereTheKernelsDo(t *testing.T) {
	ret, kept := Program{{Op: opRetA}}, Program{{Op: opRetK, K: 9}}
	data := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, c := range []struct {
		name                 string
		p                    Program
		flat, receive, linux uint32
	}{
		{"ldh over the end", append(Program{{Op: opLdH, K: 7}}, kept...), 0, 9, 0},
		{"ldh over the end loads 0", append(Program{{Op: opLdImm, K: 5}, {Op: opLdH, K: 8}, {Op: opAdd, K: 1}}, ret...), 0, 1, 0},
		{"ld over the end", append(Program{{Op: opLdW, K: 5}}, kept...), 0, 0, 0},
		{"ldb over the end", append(Program{{Op: opLdB, K: 8}}, kept...), 0, 0, 0},
		{"ldxb over the end", append(Program{{Op: opLdxMsh, K: 8}}, kept...), 0, 0, 0},
		{"indexed ldh over the end", append(Program{{Op: opLdIndH, K: 7}}, kept...), 0, 0, 0},
		{"x + k wraps", append(Program{{Op: opLdxImm, K: 0xffffffff}, {Op: opLdIndH, K: 2}}, ret...), 0, 0x0203, 0x0203},
		{"the network header", append(Program{{Op: opLdB, K: skfNetOff + 1}}, ret...), 0, 0, 6},
		{"the network header, indexed", append(Program{{Op: opLdxImm, K: skfNetOff}, {Op: opLdIndB, K: 1}}, ret...), 0, 0, 6},
		{"the network header's length", append(Program{{Op: opLdxMsh, K: skfNetOff}, {Op: opTxa}}, ret...), 0, 0, 20},
		{"the link header", append(Program{{Op: opLdB, K: skfLLOff + 1}}, ret...), 0, 0, 2},
		{"nothing at 2^31", append(Program{{Op: opLdB, K: 1 << 31}}, kept...), 0, 0, 0},
		{"metadata", append(Program{{Op: opLdB, K: adVlanTag}}, ret...), 0, 0, 0x2007},
		{"metadata with ldh", append(Program{{Op: opLdH, K: adIfindex}, {Op: opRetK, K: 9}}, ret...), 0, 9, 9},
		{"a constant shift by 33", append(Program{{Op: opLdImm, K: 3}, {Op: classAlu | aluLsh, K: 33}}, ret...), 6, 6, 6},
	} {
		pkt := Packet{Data: data, WireLen: 8, Meta: Metadata{VLANTag: 0x2007, VLANTagged: true, Ifindex: 3, NetOff: 4}}
		for _, r := range []struct {
			vm   VM
			want uint32
		}{{VM{Dialect: FreeBSD}, c.flat}, {VM{Dialect: FreeBSD, Receive: true}, c.receive}, {VM{Dialect: Linux}, c.linux}} {
			if got := r.vm.Run(c.p, pkt); got != r.want {
				t.Errorf("%s: %+v: %d, want %d", c.name, r.vm, got, r.want)
			}
		}
	}
}

func TestEachKindOfMetadataIsLoadedWhole(t *testing.T) {
	m := Metadata{Protocol: 0x0800, PktType: 4, Ifindex: 1 << 20, Hatype: 772, VLANTag: 0xe001, VLANTagged: true,
		VLANTPID: 0x88a8, Mark: 0xdeadbeef, Queue: 3, RxHash: 0xcafe0000, CPU: 63, Random: 0x80000001}
	for k, want := range map[uint32]uint32{adProtocol: 0x0800, adPktType: 4, adIfindex: 1 << 20, adHatype: 772,
		adVlanTag: 0xe001, adVlanTagged: 1, adVlanTPID: 0x88a8, adMark: 0xdeadbeef, adQueue: 3, adRxhash: 0xcafe0000,
		adCPU: 63, adRandom: 0x80000001, adPayOff: 0, adAluXorX: 6} {
		p := Program{{Op: opLdImm, K: 5}, {Op: opLdxImm, K: 3}, {Op: opLdB, K: k}, {Op: opRetA}}
		if got := (VM{}).Run(p, Packet{Meta: m}); got != want {
			t.Errorf("%s: %#x, want %#x", p.Line(2), got, want)
		}
	}
}

func TestWithoutADeviceItsNumberEndsTheProgramWithA(t *testing.T) {
	for _, k := range []uint32{adIfindex, adHatype} {
		p := Program{{Op: opLdImm, K: 5}, {Op: opLdW, K: k}, {Op: opRetK, K: 1}}
		if verdict, executed := (VM{}).Count(p, Packet{}); verdict != 5 || executed != 2 {
			t.Errorf("%s: %d after %d instructions", p.Line(1), verdict, executed)
		}
	}
}

func TestNetlinkAttributesAreFound(t *testing.T) {
	attr := func(typ uint16, payload ...byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(payload)))
		b = append(binary.NativeEndian.AppendUint16(b, typ), payload...)
		return append(b, make([]byte, -len(b)&3)...)
	}
	inner := slices.Concat(attr(1, 9), attr(2))
	data := slices.Concat(attr(7, 1), attr(8|1<<15, inner...), attr(9))
	for _, c := range []struct{ k, a, x, want uint32 }{
		{adNlattr, 0, 7, 0}, {adNlattr, 0, 8, 8}, {adNlattr, 0, 9, 24}, {adNlattr, 8, 7, 0}, {adNlattr, 0, 1, 0},
		{adNlattr, 25, 9, 0}, {adNlattr, 0xffffffff, 9, 0},
		{adNlattrNest, 8, 1, 12}, {adNlattrNest, 8, 2, 20}, {adNlattrNest, 8, 9, 0}, {adNlattrNest, 25, 9, 0},
		{adNlattrNest, 1, 9, 0},
	} {
		p := Program{{Op: opLdImm, K: c.a}, {Op: opLdxImm, K: c.x}, {Op: opLdW, K: c.k}, {Op: opRetA}}
		if got := (VM{}).Run(p, Packet{Data: data}); got != c.want {
			t.Errorf("%s from %d for type %d: %d, want %d", p.Line(2), c.a, c.x, got, c.want)
		}
	}
}

func TestTheEmptyProgramKeepsEverything(t *testing.T) {
	for _, vm := range []VM{{}, {Dialect: FreeBSD}} {
		if verdict, executed := vm.Count(nil, Packet{}); verdict != KeepAll || executed != 0 {
			t.Errorf("%+v: %d after %d instructions", vm, verdict, executed)
		}
	}
}

func TestCountCountsWhatIsExecuted(t *testing.T) {
	p := Program{{Op: opLdB}, {Op: opJeq, Jt: 1, K: 7}, {Op: opTax}, {Op: opRetK, K: 1}}
	for first, want := range map[byte]int{7: 3, 8: 4} {
		if _, executed := (VM{}).Count(p, Packet{Data: []byte{first}}); executed != want {
			t.Errorf("%d instructions, want %d", executed, want)
		}
	}
}

func TestInvalidProgramsEndToo(t *testing.T) {
	for _, p := range []Program{
		{{Op: opJa, K: 0xffffffff}}, {{Op: opJeq, Jt: 255, Jf: 255}}, {{Op: opTax}}, {{Op: 0xffff}},
		{{Op: opSt, K: 0xffffffff}}, {{Op: classAlu | aluDiv}}, {{Op: classAlu | aluMod}}, {{Op: opLdW, K: 0xffffffff}},
	} {
		if got := (VM{}).Run(p, Packet{}); got != 0 {
			t.Errorf("%v: %d, want 0", p, got)
		}
	}
}

func TestRunningDoesNotAllocate(t *testing.T) {
	p := Program{{Op: opLdImm}, {Op: opLdW, K: adNlattr}, {Op: opSt}, {Op: opLdxMsh}, {Op: opLdIndB}, {Op: opLdW, K: skfNetOff}, {Op: opRetK, K: 1}}
	pkt := Packet{Data: make([]byte, 64), WireLen: 64}
	for _, vm := range []VM{{}, {Dialect: FreeBSD}, {Dialect: FreeBSD, Receive: true}} {
		if n := testing.AllocsPerRun(100, func() { vm.Run(p, pkt) }); n != 0 {
			t.Errorf("%+v allocates %v times", vm, n)
		}
	}
}
