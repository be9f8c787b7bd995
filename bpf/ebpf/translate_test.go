package ebpf_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
)

func TestWhatHasNoCounterpartIsNamed(t *testing.T) {
	for _, c := range []struct {
		ins    xbpf.RawInstruction
		reason string
	}{
		{xbpf.RawInstruction{Op: 0x20, K: 0xfffff01c}, "hatype"},
		{xbpf.RawInstruction{Op: 0x20, K: 0xfffff00c}, "nlattr"},
		{xbpf.RawInstruction{Op: 0x20, K: 0xfffff010}, "nlattr_nest"},
		{xbpf.RawInstruction{Op: 0x20, K: 0xfffff034}, "payload offset"},
		{xbpf.RawInstruction{Op: 0x20, K: 0xfffff040}, "unknown metadata"},
		{xbpf.RawInstruction{Op: 0x34}, "division by 0"},
		{xbpf.RawInstruction{Op: 0x60, K: 16}, "M[16]"},
		{xbpf.RawInstruction{Op: 0x02, K: 0xffffffff}, "M[4294967295]"},
		{xbpf.RawInstruction{Op: 0x8c}, "unknown opcode"}, // neg x
		{xbpf.RawInstruction{Op: 0xb4}, "unknown opcode"}, // mov in eBPF
		{xbpf.RawInstruction{Op: 0x0e}, "unknown opcode"}, // ret x
		{xbpf.RawInstruction{Op: 0x38}, "unknown opcode"}, // 8 bytes
		{xbpf.RawInstruction{Op: 0x0d}, "unknown opcode"}, // ja x
		{xbpf.RawInstruction{Op: 0x55}, "unknown opcode"}, // jne in eBPF
		{xbpf.RawInstruction{Op: 0x0106}, "unknown opcode"},
		{xbpf.RawInstruction{Op: 0x05, K: 0xffffffff}, "leads to instruction 4294967297 of 3"},
		{xbpf.RawInstruction{Op: 0x15, Jt: 2}, "leads to instruction 4 of 3"},
	} {
		_, err := ebpf.Translate(bpf.Program{{Op: 0x00}, c.ins, {Op: 0x06}})
		var e *ebpf.Error
		if !errors.As(err, &e) || e.Index != 1 || e.Ins != c.ins || !strings.Contains(e.Reason, c.reason) {
			t.Errorf("error %v of %+v, want one about instruction 1 and %q", err, c.ins, c.reason)
		}
	}
}

func TestInstructionsThatNothingLeadsToAreLeftOut(t *testing.T) {
	insns, err := ebpf.Translate(bpf.Program{{Op: 0x06, K: 1}, {Op: 0x20, K: 0xfffff01c}, {Op: 0x06, K: 2}})
	if err != nil {
		t.Fatal(err)
	}
	short, err := ebpf.Translate(bpf.Program{{Op: 0x06, K: 1}})
	if err != nil || len(insns) != len(short) {
		t.Errorf("%d instructions, want %d, error %v", len(insns), len(short), err)
	}
}

func TestOnlyCellsThatMayBeReadFirstAreCleared(t *testing.T) {
	for name, c := range map[string]struct {
		p    bpf.Program
		want int
	}{
		"written":         {bpf.Program{{Op: 0x02, K: 3}, {Op: 0x60, K: 3}, {Op: 0x16}}, 0},
		"never written":   {bpf.Program{{Op: 0x60, K: 3}, {Op: 0x61, K: 4}, {Op: 0x16}}, 2},
		"on one way only": {bpf.Program{{Op: 0x15, Jf: 1}, {Op: 0x02, K: 3}, {Op: 0x60, K: 3}, {Op: 0x16}}, 1},
		"not reached":     {bpf.Program{{Op: 0x06}, {Op: 0x60, K: 3}, {Op: 0x16}}, 0},
	} {
		insns, err := ebpf.Translate(c.p)
		if err != nil {
			t.Fatal(err)
		}
		cleared := 0
		for _, ins := range insns {
			if ins.OpCode == asm.StoreImmOp(asm.Word) {
				cleared++
			}
		}
		if cleared != c.want {
			t.Errorf("%s: %d cells cleared, want %d", name, cleared, c.want)
		}
	}
}

func TestOnlyLiveViewsHaveAProgram(t *testing.T) {
	for _, v := range []bpf.View{
		{LinkType: bpf.Ethernet}, {LinkType: bpf.Null, Live: true}, {LinkType: bpf.LinuxSLL, Live: true},
	} {
		if _, err := ebpf.Spec(v, bpf.Scope{}, nil, ebpf.CapacityFor(nil)); err == nil {
			t.Errorf("a program for %v", v)
		}
	}
}

func TestCapacityIsAPowerOfTwo(t *testing.T) {
	many := make([]netip.Prefix, 4097)
	for i := range many {
		many[i] = netip.MustParsePrefix("::ffff:10.0.0.1/128")
	}
	if got, want := ebpf.CapacityFor(many), (ebpf.Capacity{IPv4: 8192, IPv6: 4096}); got != want {
		t.Errorf("capacity %v, want %v", got, want)
	}
}
