package bpf_test

import (
	"net/netip"
	"slices"
	"testing"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
)

// behindOptions are filters that look behind the IPv4 header.
var behindOptions = []string{
	"tcp port 80", "not tcp port 80", "port 53 or port 80", "tcp[13] & 2 != 0", "udp[8:2] = 0x1234 and port 53", "tcp[0:4] = 0x500050", "portrange 70-90 and not udp",
}

// optionsFrame is a frame in scope, or not, with so many words of IPv4 options.
func optionsFrame(proto byte, words int, source netip.Addr) []byte {
	frame := ipv4Frame(source, netip.MustParseAddr("192.0.2.1"))[:34]
	frame[14], frame[23] = 0x45+byte(words), proto
	frame = append(frame, make([]byte, 4*words)...)
	return append(frame, 0, 80, 0, 80, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0)
}

// behindScope is a filter as it is, and behind a scope on live frames.
func behindScope(t *testing.T, scope bpf.Scope, expr string) (user, p bpf.Program) {
	t.Helper()
	user, err := pcapexpr.Compile(expr, bpf.Ethernet, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err = bpf.Compile(scope, bpf.View{LinkType: bpf.Ethernet, Live: true}, bpf.Linux, user)
	if err != nil {
		t.Fatal(err)
	}
	return user, p
}

// TestHeadersWithoutOptionsAreJudgedAsThoseWithAre: wherever the frame ends.
func TestHeadersWithoutOptionsAreJudgedAsThoseWithAre(t *testing.T) {
	jail, other := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6")
	scope := bpf.Scope{Addrs: []netip.Prefix{netip.PrefixFrom(jail, 32)}}
	kept := 0
	for _, expr := range behindOptions {
		user, p := behindScope(t, scope, expr)
		for words := range 11 {
			for _, proto := range []byte{6, 17} {
				for _, source := range []netip.Addr{jail, other} {
					whole := optionsFrame(proto, words, source)
					for n := range len(whole) + 1 {
						packet := bpf.Packet{Data: whole[:n], WireLen: uint32(n)}
						want := uint32(0)
						if scope.Match(bpf.Ethernet, packet.Data) {
							want, _ = bpf.VM{}.Count(user, packet)
						}
						if got, _ := (bpf.VM{}).Count(p, packet); got != want {
							t.Fatalf("%q, %d words of options, %d bytes: verdict %d, want %d\n%s", expr, words, n, got, want, p.Text())
						}
						if want != 0 {
							kept++
						}
					}
				}
			}
		}
	}
	if kept < 1000 {
		t.Errorf("only %d frames were kept", kept)
	}
}

func TestBehindAHeaderWithoutOptionsNoPlaceIsComputed(t *testing.T) {
	jail := netip.MustParseAddr("10.0.0.5")
	scope := bpf.Scope{Addrs: []netip.Prefix{netip.PrefixFrom(jail, 32)}}
	const indexed, computed = 0x40, 12345 // BPF_IND of linux/bpf_common.h
	for _, expr := range behindOptions {
		_, p := behindScope(t, scope, expr)
		marked := slices.Clone(p)
		for i, ins := range marked {
			if ins.Op&7 == 0 && ins.Op&0xe0 == indexed {
				marked[i] = bpf.Program{{Op: 6, K: computed}}[0]
			}
		}
		for words, want := range []bool{false, true} {
			got := slices.ContainsFunc([]byte{6, 17}, func(proto byte) bool {
				frame := optionsFrame(proto, words, jail)
				verdict, _ := bpf.VM{}.Count(marked, bpf.Packet{Data: frame, WireLen: uint32(len(frame))})
				return verdict == computed
			})
			if got != want {
				t.Errorf("%q, %d words of options: a place is computed: %t\n%s", expr, words, got, p.Text())
			}
		}
	}
}
