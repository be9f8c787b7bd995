package ebpf_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	cilium "github.com/cilium/ebpf"
	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
	"jailtap/internal/testutil"
)

// translated loads p, alone, as a tc program.
func translated(t *testing.T, p bpf.Program) loaded {
	t.Helper()
	insns, err := ebpf.Translate(p)
	if err != nil {
		t.Fatalf("%v\n%v", err, p.Text())
	}
	return load(t, &cilium.CollectionSpec{Programs: map[string]*cilium.ProgramSpec{
		ebpf.Program: {Instructions: insns, License: "Apache-2.0"},
	}}, cilium.SchedCLS)
}

const testMark = 0xdeadbeef

// runMarked is run with a mark on the packet.
func (l loaded) runMarked(t *testing.T, frame []byte) uint32 {
	t.Helper()
	skb := [48]uint32{2: testMark} // struct __sk_buff
	verdict, err := l.Programs[ebpf.Program].Run(&cilium.RunOptions{Data: frame, Context: skb})
	if err != nil {
		t.Fatalf("run on %x: %v", frame, err)
	}
	return verdict
}

// packet is what the reference VM is to know of a test run on frame, which
// happens on lo.
func packet(frame []byte) bpf.Packet {
	meta := bpf.Metadata{Protocol: uint16(frame[12])<<8 | uint16(frame[13]), Ifindex: 1, Hatype: 772, Mark: testMark, NetOff: 14}
	switch {
	case frame[0]&1 != 0:
		meta.PktType = 2
	case [6]byte(frame) != [6]byte{}:
		meta.PktType = 3
	}
	return bpf.Packet{Data: frame, WireLen: uint32(len(frame)), Meta: meta}
}

// program is a random program that is valid on Linux but for reads of M[] that
// were not written and large shift counts, which FreeBSD takes.
func (w world) program() bpf.Program {
	n := 2 + w.IntN(40)
	p := make(bpf.Program, n)
	ops := []uint16{0x00, 0x01, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x81, 0xb1, 0x60, 0x61, 0x02, 0x03,
		0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x84, 0x94, 0xa4,
		0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0x9c, 0xac, 0x07, 0x87,
		0x05, 0x15, 0x25, 0x35, 0x45, 0x1d, 0x2d, 0x3d, 0x4d, 0x15, 0x25, 0x35, 0x45, 0x06, 0x16}
	for i := range p {
		left := n - 1 - i
		ins := xbpf.RawInstruction{Op: ops[w.IntN(len(ops))], K: w.constant()}
		if left == 0 {
			ins.Op = []uint16{0x06, 0x16, 0x16}[w.IntN(3)]
		}
		switch ins.Op {
		case 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1:
			ins.K = w.offset()
		case 0x60, 0x61, 0x02, 0x03:
			ins.K %= 16
		case 0x34, 0x94:
			ins.K = max(ins.K, 1)
		case 0x05:
			ins.K = uint32(w.IntN(min(left, 9)))
		case 0x06:
			if left > 0 && w.IntN(3) > 0 { // few early ends
				ins = xbpf.RawInstruction{Op: 0x87}
			}
		}
		if ins.Op&7 == 5 && ins.Op != 5 {
			ins.Jt, ins.Jf = uint8(w.IntN(min(left, 9))), uint8(w.IntN(min(left, 9)))
		}
		p[i] = ins
	}
	return p
}

func (w world) constant() uint32 {
	return []uint32{0, 1, 2, 4, 14, 31, 32, 33, 0x0800, 0x7fffffff, 0x80000000, 0xffffffff,
		uint32(w.IntN(64)), uint32(w.IntN(256)), w.Uint32()}[w.IntN(15)]
}

// offset is in the frame mostly, or past it, or in what Linux has elsewhere.
func (w world) offset() uint32 {
	ancillary := []uint32{0, 4, 8, 20, 24, 32, 40, 44, 48, 60} // SKF_AD_OFF + ...
	switch w.IntN(12) {
	case 0:
		return 0xfffff000 + ancillary[w.IntN(len(ancillary))]
	case 1:
		return 0xfff00000 + uint32(w.IntN(30)) // SKF_NET_OFF
	case 2:
		return 0xffe00000 + uint32(w.IntN(30)) // SKF_LL_OFF
	case 3:
		return []uint32{0x7fffffff, 0x80000000, 0xffdfffff, 0xfff0ffff, w.Uint32() % 0xfffff000}[w.IntN(5)]
	}
	return uint32(w.IntN(70))
}

func TestTranslatedProgramsKeepTheirVerdicts(t *testing.T) {
	testutil.NeedRoot(t)
	const programs, frames = 500, 40
	w := world{rand.New(rand.NewPCG(1993, 2008))}
	verdicts := map[string]int{}
	for range programs {
		p := w.program()
		l := translated(t, p)
		for range frames {
			frame := w.wholeFrame()
			want := bpf.VM{}.Run(p, packet(frame))
			got := l.runMarked(t, frame)
			if got != want {
				t.Fatalf("verdict %#x, want %#x\nframe %x\n%s", got, want, frame, p.Text())
			}
			switch want {
			case 0:
				verdicts["zero"]++
			default:
				verdicts["other"]++
			}
		}
	}
	t.Logf("%d programs, %d frames: %v", programs, programs*frames, verdicts)
	if verdicts["other"] < programs*frames/10 {
		t.Error("nearly all programs reject")
	}
}

// wholeFrame is a frame that test runs take.
func (w world) wholeFrame() []byte {
	for {
		f := w.frame()
		etherType := uint16(f[12])<<8 | uint16(f[13])
		if etherType >= 0x600 && len(f) > 14 && !endsInAddresses(f, 14, etherType) {
			return f
		}
	}
}

// compiled are programs as libpcap 1.10.3 makes them (tcpdump -ddd, link type
// EN10MB, snap length 262144).
var compiled = map[string]bpf.Program{
	"tcp port 80": {
		{Op: 40, K: 12}, {Op: 21, Jf: 6, K: 34525}, {Op: 48, K: 20}, {Op: 21, Jf: 15, K: 6}, {Op: 40, K: 54},
		{Op: 21, Jt: 12, K: 80}, {Op: 40, K: 56}, {Op: 21, Jt: 10, Jf: 11, K: 80}, {Op: 21, Jf: 10, K: 2048}, {Op: 48, K: 23},
		{Op: 21, Jf: 8, K: 6}, {Op: 40, K: 20}, {Op: 69, Jt: 6, K: 8191}, {Op: 177, K: 14}, {Op: 72, K: 14},
		{Op: 21, Jt: 2, K: 80}, {Op: 72, K: 16}, {Op: 21, Jf: 1, K: 80}, {Op: 6, K: 262144}, {Op: 6},
	},
	"ip[2:2] - ((ip[0] & 0xf) << 2) > 20": {
		{Op: 40, K: 12}, {Op: 21, Jf: 10, K: 2048}, {Op: 40, K: 16}, {Op: 2, K: 1}, {Op: 48, K: 14},
		{Op: 84, K: 15}, {Op: 100, K: 2}, {Op: 7, K: 5}, {Op: 96, K: 1}, {Op: 28},
		{Op: 37, Jf: 1, K: 20}, {Op: 6, K: 262144}, {Op: 6},
	},
	"ip6 or (host 10.0.0.1 and not multicast)": {
		{Op: 40, K: 12}, {Op: 21, Jt: 13, K: 34525}, {Op: 21, Jf: 4, K: 2048}, {Op: 32, K: 26}, {Op: 21, Jt: 8, K: 167772161},
		{Op: 32, K: 30}, {Op: 21, Jt: 6, Jf: 9, K: 167772161}, {Op: 21, Jt: 1, K: 2054}, {Op: 21, Jf: 7, K: 32821}, {Op: 32, K: 28},
		{Op: 21, Jt: 2, K: 167772161}, {Op: 32, K: 38}, {Op: 21, Jf: 3, K: 167772161}, {Op: 48}, {Op: 69, Jt: 1, K: 1},
		{Op: 6, K: 262144}, {Op: 6},
	},
}

func TestLibpcapsProgramsKeepTheirVerdicts(t *testing.T) {
	testutil.NeedRoot(t)
	w := world{rand.New(rand.NewPCG(80, 2008))}
	port := func() netip.AddrPort {
		return netip.AddrPortFrom(w.addrOf(true), []uint16{80, 443}[w.IntN(2)])
	}
	for expr, p := range compiled {
		l := translated(t, p)
		accepted := 0
		for range 500 {
			frame := w.wholeFrame()
			if w.IntN(2) == 0 {
				frame = testutil.TCP4(port(), port(), testutil.SYN, nil)
			}
			want := bpf.VM{}.Run(p, packet(frame))
			if got := l.runMarked(t, frame); got != want {
				t.Fatalf("%s: verdict %#x, want %#x, of %x", expr, got, want, frame)
			}
			if want != 0 {
				accepted++
			}
		}
		if accepted == 0 || accepted == 500 {
			t.Errorf("%s: %d of 500 frames accepted", expr, accepted)
		}
	}
}

func TestTheLongestProgramsAreTranslated(t *testing.T) {
	testutil.NeedRoot(t)
	chain := bpf.Program{{Op: 0x20, K: 26}} // ip src host: a chain of comparisons, 16 to a return
	for len(chain) < 4096-17 {
		for left := 16; left > 0; left-- {
			chain = append(chain, xbpf.RawInstruction{Op: 0x15, Jt: uint8(left), K: uint32(0x0a000000 + len(chain))})
		}
		chain = append(chain, xbpf.RawInstruction{Op: 0x05, K: 1}, xbpf.RawInstruction{Op: 0x06, K: uint32(len(chain))})
	}
	chain = append(chain, xbpf.RawInstruction{Op: 0x06})
	var hosts bpf.Program // as libpcap has many hosts: a long row of jeq, with a way to the end here and there
	for len(hosts) < 4096-250 {
		hosts = append(hosts, xbpf.RawInstruction{Op: 0x20, K: uint32(26 + 4*(len(hosts)/250%2))})
		for left := 247; left > 0; left-- {
			hosts = append(hosts, xbpf.RawInstruction{Op: 0x15, Jt: uint8(left), K: uint32(0x0a000000 + len(hosts))})
		}
		hosts = append(hosts, xbpf.RawInstruction{Op: 0x05, K: 1}, xbpf.RawInstruction{Op: 0x05, K: uint32(4093 - len(hosts))})
	}
	for len(hosts) < 4095 {
		hosts = append(hosts, xbpf.RawInstruction{Op: 0x14, K: 1})
	}
	hosts = append(hosts, xbpf.RawInstruction{Op: 0x16})
	divisions := bpf.Program{}
	for len(divisions) < 4095 {
		divisions = append(divisions, xbpf.RawInstruction{Op: 0x3c})
	}
	divisions = append(divisions, xbpf.RawInstruction{Op: 0x06, K: 1})
	for name, p := range map[string]bpf.Program{"chain": chain, "hosts": hosts, "divisions": divisions} {
		frame := testutil.UDP4(netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:1", 4000>>8, 4000&255)), netip.MustParseAddrPort("10.0.0.1:1"), nil)
		want := bpf.VM{}.Run(p, packet(frame))
		if got := translated(t, p).run(t, frame); got != want {
			t.Errorf("%s of %d instructions: verdict %d, want %d", name, len(p), got, want)
		}
		s := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, VLANs: bpf.VLANs{IDs: []uint16{7}}}
		behind := loadScope(t, bpf.View{LinkType: bpf.Ethernet, Live: true}, s, p, cilium.SchedCLS)
		if got := behind.run(t, frame); got != want {
			t.Errorf("%s behind a scope: verdict %d, want %d", name, got, want)
		}
	}
}
