package bpf_test

import (
	"net/netip"
	"testing"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
)

// stepExprs are user filters of all kinds; J is an address of the jail.
var stepExprs = []string{
	"", "ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "not ip", "not arp", "ip or arp", "tcp or udp", "not tcp",
	"tcp port 80", "udp port 53", "port 53", "not port 22", "src port 80", "dst port 443", "tcp dst port 443 or tcp src port 443",
	"port 80 or port 443", "port 80 or port 443 or port 8080", "portrange 1000-2000", "udp portrange 1000-2000",
	"host 10.0.0.5", "not host 10.0.0.5", "src host 10.0.0.5", "dst host 10.0.0.5", "host 10.0.1.2", "src host 10.0.1.2", "not host 10.0.1.2",
	"host 10.0.0.5 and port 53", "host 10.0.0.5 and host 10.0.1.2", "src host 10.0.0.5 and dst host 10.0.1.2",
	"host 10.0.1.2 and tcp port 80", "not host 10.0.1.2 and tcp", "(host 10.0.1.2 or host 10.0.1.3) and not port 22",
	"net 10.0.1.0/24", "src net 10.0.0.0/24", "dst net 10.0.1.0/24 and udp", "not net 10.0.0.0/16", "ip host 10.0.1.2", "ip src 10.0.1.2",
	"host 2001:db8::5", "ip6 host 2001:db8::7", "ip6 and tcp port 80", "ip6 net 2001:db8::/32", "not ip6 host 2001:db8::7",
	"arp host 10.0.0.5", "arp or icmp", "ether host 02:00:00:00:00:01", "ether src 02:00:00:00:00:01", "ether multicast", "ether broadcast",
	"ip multicast", "ip proto 50", "ip proto 50 or ip proto 51", "icmp[0] = 8", "icmp[icmptype] = icmp-echo or icmp[icmptype] = icmp-echoreply",
	"tcp[13] & 2 != 0", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src net 10.0.0.0/24", "ip[8] < 5", "ip[6:2] & 0x1fff = 0", "ip[2:2] > 576",
	"tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)", "len > 100", "less 64", "greater 100", "ip[12:4] = ip[16:4]",
	"ip and not (tcp or udp)", "udp and (port 67 or port 68)", "(tcp or udp) and (port 80 or port 443) and (host 10.0.1.2 or host 10.0.1.3)",
}

// An injected program asks no more of any frame than what libpcap makes of the
// conjunction in words, with its optimiser on.
func TestAnInjectedProgramExecutesNoMoreThanLibpcapsConjunction(t *testing.T) {
	const perCase = 2000
	vm := bpf.VM{Dialect: bpf.FreeBSD}
	addrs := []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}
	compared := 0
	for _, policy := range []bpf.Policy{bpf.Classic, bpf.Full} {
		scope := bpf.Scope{Addrs: addrs, Policy: policy}
		if policy == bpf.Full {
			scope.Addrs = append(addrs, netip.MustParsePrefix("2001:db8::5/128"))
		}
		t.Logf("policy %v: mean instructions executed a frame, injected and libpcap's", policy)
		t.Logf("%-78s %9s %17s %17s %7s", "filter", "length", "in scope", "out of scope", "most")
		for _, expr := range stepExprs {
			user, err := pcapexpr.Compile(expr, bpf.Ethernet, 262144)
			if err != nil {
				t.Fatal(err)
			}
			injected, err := bpf.Compile(scope, bpf.View{LinkType: bpf.Ethernet}, bpf.FreeBSD, user)
			if err != nil {
				t.Fatal(err)
			}
			conjunction := scope.Expr(bpf.Ethernet)
			if expr != "" {
				conjunction = "(" + conjunction + ") and (" + expr + ")"
			}
			libpcap, err := pcapexpr.CompileOptimized(conjunction, bpf.Ethernet, 262144)
			if err != nil { // libpcap finds that nothing can match; so must we
				if len(injected) > 1 {
					t.Logf("%-78s %v; ours has %d instructions", expr, err, len(injected))
				}
				continue
			}
			var steps [2][2]int // injected, libpcap; in scope, out
			var frames [2]int
			most := 0
			s := newSource(7)
			s.addrs4[0], s.addrs4[1] = netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.1.2")
			s.addrs6[0] = netip.MustParseAddr("2001:db8::5")
			for range perCase {
				frame := s.frame(bpf.Ethernet)
				if !whole(bpf.Ethernet, frame) {
					continue
				}
				out := 1
				if scope.Match(bpf.Ethernet, frame) {
					out = 0
				}
				packet := bpf.Packet{Data: frame, WireLen: uint32(len(frame))}
				_, ours := vm.Count(injected, packet)
				_, theirs := vm.Count(libpcap, packet)
				if ours > theirs {
					t.Errorf("%v, %q: %d instructions, libpcap's %d, for frame %x\n%s\nlibpcap\n%s", policy, expr, ours, theirs, frame, injected.Text(), libpcap.Text())
					break
				}
				most = max(most, theirs-ours)
				steps[0][out] += ours
				steps[1][out] += theirs
				frames[out]++
				compared++
			}
			mean := func(who, out int) float64 { return float64(steps[who][out]) / float64(max(frames[out], 1)) }
			t.Logf("%-78s %4d %4d %8.2f %8.2f %8.2f %8.2f %7d", expr, len(injected), len(libpcap),
				mean(0, 0), mean(1, 0), mean(0, 1), mean(1, 1), -most)
		}
	}
	if compared < perCase*len(stepExprs) {
		t.Errorf("only %d frames compared", compared)
	}
}
