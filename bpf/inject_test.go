package bpf

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestATightPrefixIsWhatSpecializeMakesOfIt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2008))
	prefix := func() netip.Prefix {
		b := [16]byte{10, 0, 12: byte(r.IntN(2)), 15: byte(r.IntN(256))}
		a := netip.AddrFrom16(b)
		if r.IntN(3) > 0 {
			a = netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(256))})
		}
		bits := a.BitLen()
		if r.IntN(4) == 0 {
			bits = r.IntN(bits + 1)
		}
		return netip.PrefixFrom(a, bits).Masked()
	}
	compared := 0
	for range 2000 {
		s := Scope{Policy: []Policy{Full, Classic, ClassicHost}[r.IntN(3)]}
		for range []int{0, 1, 1, 2, 3, 8, 9, 60}[r.IntN(8)] {
			s.Addrs = append(s.Addrs, prefix())
		}
		if r.IntN(4) == 0 {
			s.VLANs.IDs = []uint16{7}
		}
		v := View{LinkType: []LinkType{Ethernet, LinuxSLL2, Raw}[r.IntN(3)], Live: true}
		p, err := s.Prefix(v)
		if err != nil {
			t.Fatal(err)
		}
		if !p.tight() {
			continue
		}
		user := Program{ins(opRetK, 96)}
		special, ok := specialize(p.graph(user.graph(), ret(0)))
		if !ok {
			t.Fatalf("%v, %v: specialize gave up", s, v)
		}
		if got, want := p.inject(user, 4096), emit(special, nil); !slices.Equal(got, want) {
			t.Errorf("%v, %v: %d instructions, and specialized %d", s, v, len(got), len(want))
		}
		compared++
	}
	if compared < 500 {
		t.Errorf("only %d programs were compared", compared)
	}
}
