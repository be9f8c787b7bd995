package bpf_test

import (
	"fmt"
	"net/netip"

	"jailtap/bpf"
)

// The prefix of 2008 in front of a filter for TCP.
func ExampleCompile() {
	jail := bpf.Scope{
		Addrs:  []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")},
		Policy: bpf.Classic,
	}
	tcp, err := bpf.ParseProgram("4\n48 0 0 23\n21 0 1 6\n6 0 0 65535\n6 0 0 0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ethernet := bpf.View{LinkType: bpf.Ethernet}
	program, err := bpf.Compile(jail, ethernet, bpf.FreeBSD, tcp)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(program.Text())
	// Output:
	// (000) ldh      [12]
	// (001) jeq      #0x800           jt 2	jf 11
	// (002) ld       [26]
	// (003) jeq      #0xc0000207      jt 8	jf 4
	// (004) ld       [30]
	// (005) jeq      #0xc0000207      jt 8	jf 6
	// (006) ldb      [0]
	// (007) jset     #0x1             jt 8	jf 11
	// (008) ldb      [23]
	// (009) jeq      #0x6             jt 10	jf 11
	// (010) ret      #65535
	// (011) ret      #0
}

func ExampleScope_Expr() {
	jail := bpf.Scope{Addrs: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8:7::/48"),
	}}
	fmt.Println(jail.Expr(bpf.Ethernet))
	// Output:
	// (ip and (host 192.0.2.7 or multicast or broadcast)) or (ip6 and (net 2001:db8:7::/48 or multicast)) or ((arp or rarp) and (host 192.0.2.7 or broadcast))
}

func ExampleProve() {
	scope := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}, Policy: bpf.Classic}
	ethernet := bpf.View{LinkType: bpf.Ethernet}
	everything := bpf.Program{{Op: 0x06, K: 65535}}
	fmt.Println(bpf.Prove(everything, scope, ethernet))

	injected, err := bpf.Compile(scope, ethernet, bpf.FreeBSD, everything)
	fmt.Println(err, bpf.Prove(injected, scope, ethernet))
	// Output:
	// not proved: instruction (000) ret      #65535: it may accept a frame that is not in scope
	// <nil> <nil>
}
