package bpf

import (
	"net/netip"
	"testing"
)

// benchmarkScope is one that most captures have: an address of each kind.
func benchmarkScope() (Scope, View) {
	return Scope{Policy: Full, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128")}},
		View{LinkType: Ethernet, Live: true}
}

func BenchmarkCompileUnproved(b *testing.B) {
	s, v := benchmarkScope()
	user := Program{ins(opRetK, KeepAll)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CompileUnproved(s, v, Linux, user); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProve(b *testing.B) {
	s, v := benchmarkScope()
	p, err := CompileUnproved(s, v, Linux, Program{ins(opRetK, KeepAll)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Prove(p, s, v); err != nil {
			b.Fatal(err)
		}
	}
}
