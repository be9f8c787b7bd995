package ebpf_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	cilium "github.com/cilium/ebpf"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
	"jailtap/internal/testutil"
)

func loadCaptive(t *testing.T, s bpf.Scope) loaded {
	t.Helper()
	capacity := ebpf.CapacityFor(s.Addrs)
	spec, err := ebpf.Captive(s, capacity)
	if err != nil {
		t.Fatal(err)
	}
	l := load(t, spec, cilium.SocketFilter)
	l.put(t, s.Addrs, capacity)
	return l
}

// among are frames from and to a few addresses, of which some end too early, for the
// interface that the kernel takes for test runs.
func among(r *rand.Rand) []byte {
	frame := anyOf(r)
	copy(frame, make([]byte, 6))
	return frame
}

func anyOf(r *rand.Rand) []byte {
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(4 + r.IntN(4))}) }
	port := func() netip.AddrPort { return netip.AddrPortFrom(addr(), 1000) }
	port6 := func() netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(4 + r.IntN(4))}), 1000)
	}
	switch r.IntN(4) {
	case 0:
		return testutil.UDP4(port(), port(), []byte("payload"))
	case 1:
		return testutil.UDP6(port6(), port6(), []byte("payload"))
	case 2:
		return testutil.ARP(testutil.ARPReply, addr(), addr(), testutil.MACOf(addr()))
	}
	arp := testutil.ARP(testutil.ARPReply, addr(), addr(), testutil.MACOf(addr()))
	return arp[:14+r.IntN(len(arp)-14)]
}

// What a frame is that ends between its addresses: see Spec.
func TestCaptivesJudgeFramesAsTheScopeDoes(t *testing.T) {
	testutil.NeedRoot(t)
	s := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32"), netip.MustParsePrefix("fd00::5/128")}}
	captive := loadCaptive(t, s)
	r := rand.New(rand.NewPCG(1, 2))
	verdicts := map[bool]int{}
	for range 4000 {
		frame := among(r)
		const bothAddresses = 14 + 28 // of ARP, the shortest
		want := len(frame) >= bothAddresses && s.Match(bpf.Ethernet, frame)
		if got := captive.run(t, frame) != 0; got != want {
			t.Fatalf("%x: in scope %t, want %t", frame, got, want)
		}
		frame[5]++ // another host's
		if captive.run(t, frame) != 0 {
			t.Fatalf("%x: in scope, although nobody has told what the socket is bound for", frame)
		}
		verdicts[want]++
	}
	if verdicts[true] < 1000 || verdicts[false] < 1000 {
		t.Errorf("%d frames in scope, and %d out of it, are too few", verdicts[true], verdicts[false])
	}
}

func TestNothingBehindTheEndOfAFrameIsRead(t *testing.T) {
	testutil.NeedRoot(t)
	const n = 32
	spec, err := ebpf.FirstBytes(n)
	if err != nil {
		t.Fatal(err)
	}
	l := load(t, spec, cilium.SocketFilter)
	for length := range 64 - 14 {
		frame := make([]byte, 14+length)
		binary.BigEndian.PutUint16(frame[12:], 0x88b5) // for experiments: the kernel expects no header
		if got := l.run(t, frame) != 0; got != (length >= n) {
			t.Errorf("%d of %d bytes: %t", length, n, got)
		}
	}
}

func TestALayoutThatTheKernelDoesNotHaveIsFoundOut(t *testing.T) {
	testutil.NeedRoot(t)
	if ebpf.AcceptsEmptyLayout() {
		t.Error("the kernel took calls of functions that it does not have")
	}
}
