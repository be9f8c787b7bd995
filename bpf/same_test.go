package bpf_test

import (
	"testing"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
)

func TestSameVerdictsSeesWhatLibpcapsOptimiserLoses(t *testing.T) {
	version := pcapexpr.Version()
	for _, expr := range []string{
		"(not host 172.16.0.1) and (ip and ((host 172.16.0.1 or host 172.16.0.2) or multicast or broadcast))",
		"(ip host 10.0.0.1 and tcp port 22) or ((host 10.0.0.1 or host 10.0.0.2) and port 80)",
	} {
		plain, err := pcapexpr.CompileUnoptimized(expr, bpf.Ethernet, 65535)
		if err != nil {
			t.Fatal(err)
		}
		optimized, err := pcapexpr.CompileOptimized(expr, bpf.Ethernet, 65535)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %q: the optimised program is shown to be the same: %v", version, expr, bpf.SameVerdicts(plain, optimized))

		// Whatever this libpcap does, what Compile takes must be right.
		program, err := pcapexpr.Compile(expr, bpf.Ethernet, 65535)
		if err != nil {
			t.Fatal(err)
		}
		s := newSource(4)
		s.addrs4 = append(s.addrs4, s.must("10.0.0.1", "10.0.0.2", "172.16.0.1", "172.16.0.2", "10.0.0.1", "172.16.0.2")...)
		for range 5000 {
			frame := s.frame(bpf.Ethernet)
			if !whole(bpf.Ethernet, frame) {
				continue
			}
			packet := bpf.Packet{Data: frame, WireLen: uint32(len(frame))}
			if got, want := (bpf.VM{}).Run(program, packet), (bpf.VM{}).Run(plain, packet); got != want {
				t.Fatalf("%q: frame %x: verdict %d, want %d", expr, frame, got, want)
			}
		}
	}
}

// Of ordinary filters the optimised program is taken.
func TestSameVerdictsFollowsLibpcapsOptimiser(t *testing.T) {
	shown := 0
	for _, expr := range stepExprs[1:] {
		plain, err := pcapexpr.CompileUnoptimized(expr, bpf.Ethernet, 65535)
		if err != nil {
			t.Fatal(err)
		}
		optimized, err := pcapexpr.CompileOptimized(expr, bpf.Ethernet, 65535)
		if err != nil {
			t.Fatal(err)
		}
		if bpf.SameVerdicts(plain, optimized) {
			shown++
		} else {
			t.Logf("not shown: %s", expr)
		}
	}
	if shown < len(stepExprs)*9/10 {
		t.Errorf("shown for %d of %d filters only", shown, len(stepExprs))
	}
}

func TestSameVerdictsTellsProgramsApart(t *testing.T) {
	ldb := bpf.Program{{Op: 0x30, K: 9}, {Op: 0x15, K: 6, Jf: 1}, {Op: 0x06, K: 1}, {Op: 0x06}}
	for name, other := range map[string]bpf.Program{
		"another verdict": {{Op: 0x30, K: 9}, {Op: 0x15, K: 6, Jf: 1}, {Op: 0x06, K: 2}, {Op: 0x06}},
		"another value":   {{Op: 0x30, K: 9}, {Op: 0x15, K: 7, Jf: 1}, {Op: 0x06, K: 1}, {Op: 0x06}},
		"another place":   {{Op: 0x30, K: 8}, {Op: 0x15, K: 6, Jf: 1}, {Op: 0x06, K: 1}, {Op: 0x06}},
		"a sum":           {{Op: 0x80}, {Op: 0x16}},
		"everything":      nil,
	} {
		if bpf.SameVerdicts(ldb, other) || bpf.SameVerdicts(other, ldb) {
			t.Errorf("%s: taken for the same", name)
		}
	}
	if !bpf.SameVerdicts(ldb, ldb) {
		t.Error("a program is not the same as itself")
	}
}
