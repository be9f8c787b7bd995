package ebpf_test

import (
	"encoding/binary"
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

// A world draws scopes and frames from the same addresses, so that they meet.
type world struct{ *rand.Rand }

func (w world) addr() netip.Addr {
	n := byte(w.IntN(12))
	switch w.IntN(12) {
	case 0:
		return netip.MustParseAddr([]string{"0.0.0.0", "255.255.255.255", "224.0.0.251", "239.1.2.3", "127.0.0.1"}[w.IntN(5)])
	case 1:
		return netip.MustParseAddr([]string{"::", "ff02::1", "ff05::2", "fe80::1", "::ff:0:1"}[w.IntN(5)])
	case 2, 3, 4, 5:
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 7: n & 1, 8: n, 15: byte(w.IntN(20))})
	default:
		return netip.AddrFrom4([4]byte{10, n & 1, n >> 1, byte(w.IntN(20))})
	}
}

func (w world) addrOf(v4 bool) netip.Addr {
	for {
		if a := w.addr(); a.Is4() == v4 {
			return a
		}
	}
}

func (w world) scope() bpf.Scope {
	s := bpf.Scope{Policy: []bpf.Policy{bpf.Full, bpf.Full, bpf.Classic, bpf.ClassicHost}[w.IntN(4)]}
	for range []int{0, 1, 1, 2, 5, 20, 200}[w.IntN(7)] {
		a := w.addr()
		bits := a.BitLen()
		if w.IntN(8) == 0 {
			bits -= w.IntN(bits / 3)
		}
		s.Addrs = append(s.Addrs, netip.PrefixFrom(a, bits).Masked())
	}
	switch w.IntN(3) {
	case 0:
		s.VLANs.Any = true
	case 1:
		s.VLANs.IDs = []uint16{0, 7, 4095}[:1+w.IntN(3)]
	}
	return s
}

func (w world) mac() testutil.MAC {
	return []testutil.MAC{
		{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 1}, testutil.BroadcastMAC, {1, 0, 0x5e, 0, 0, 1},
		{0x33, 0x33, 0, 0, 0, 1}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xfe}, {0xff, 0xff, 0xff, 0, 0xff, 0xff},
	}[w.IntN(7)]
}

// frame is an Ethernet frame of at least 14 bytes.
func (w world) frame() []byte {
	port := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, uint16(w.Uint32())) }
	v4 := w.IntN(2) == 0
	src, dst := w.addrOf(v4), w.addrOf(v4)
	var f []byte
	switch w.IntN(10) {
	case 0:
		f = testutil.ARP(uint16(1+w.IntN(2)), w.addrOf(true), w.addrOf(true), w.mac())
		if w.IntN(3) == 0 {
			binary.BigEndian.PutUint16(f[12:], 0x8035) // RARP
		}
	case 1:
		f = testutil.NeighborSolicit(w.addrOf(false), w.addrOf(false))
	case 2: // LLC, MPLS, PPPoE, a third kind of tag, and types that lie
		f = testutil.UDP4(port(src), port(dst), nil)
		binary.BigEndian.PutUint16(f[12:], []uint16{46, 0x8847, 0x8864, 0x9100, 0x0800, 0x86dd, 0x0806, 0x8100}[w.IntN(8)])
	case 3: // options and fragments
		f = testutil.UDP4(port(w.addrOf(true)), port(w.addrOf(true)), make([]byte, 20))
		f[14], f[20], f[21] = 0x46+byte(w.IntN(10)), byte(w.IntN(64)), byte(w.Uint32())
	case 4: // noise
		f = testutil.Ethernet(testutil.MAC{2}, w.mac(), []uint16{0x0800, 0x86dd, 0x0806}[w.IntN(3)], nil)
		for range w.IntN(50) {
			f = append(f, byte(w.Uint32()))
		}
	default:
		f = testutil.UDP4(port(src), port(dst), make([]byte, w.IntN(20)))
	}
	f = testutil.To(f, w.mac())
	for range []int{0, 0, 0, 0, 1, 1, 2, 3}[w.IntN(8)] {
		f = testutil.Tagged(f, []uint16{0x8100, 0x8100, 0x88a8}[w.IntN(3)], []uint16{0, 7, 0xe007, 8, 4095}[w.IntN(5)])
	}
	if w.IntN(8) == 0 {
		f = f[:14+w.IntN(min(len(f), 75)-13)]
	}
	return f
}

// cooked is what a capture file has of a frame that a SOCK_DGRAM socket gets in
// a test run. These happen on lo, whose broadcast address is 0, so that ff:ff:…
// is a multicast to it.
func cooked(frame []byte) []byte {
	header := make([]byte, 20)
	copy(header, frame[12:14])
	if frame[0]&1 != 0 {
		header[10] = 2 // PACKET_MULTICAST
	}
	return append(header, frame[14:]...)
}

// endsInAddresses reports whether frame, with its network header at net, ends
// before the addresses do: there the program may be stricter than Match.
func endsInAddresses(frame []byte, net int, etherType uint16) bool {
	for etherType == 0x8100 || etherType == 0x88a8 {
		if len(frame) < net+4 {
			return true
		}
		etherType = binary.BigEndian.Uint16(frame[net+2:])
		net += 4
	}
	return len(frame) < net+map[uint16]int{0x0800: 20, 0x86dd: 40, 0x0806: 28, 0x8035: 28}[etherType]
}

// hiddenTag reports whether a cooked frame has a VLAN tag that stands in it when
// the program runs: one more than those in metadata. Where it is cannot be
// known, so such frames are out of scope.
func hiddenTag(lt bpf.LinkType, file []byte, metadata int) bool {
	isTag := func(off int) bool {
		return len(file) >= off+2 && (file[off] == 0x81 && file[off+1] == 0 || file[off] == 0x88 && file[off+1] == 0xa8)
	}
	return lt == bpf.LinuxSLL2 && isTag(0) && (metadata == 0 || isTag(22))
}

// A stage is a way to run a scope's program on frames, and what a capture file
// would hold of them.
type stage struct {
	name string
	lt   bpf.LinkType
	kind cilium.ProgramType
	wire bool                      // else a test run
	file func(frame []byte) []byte // of the Ethernet frame
	net  int                       // offset of the network header in file
}

var (
	whole   = func(frame []byte) []byte { return frame }
	network = func(frame []byte) []byte { return frame[14:] }
	stages  = []stage{
		{"EN10MB in a test run", bpf.Ethernet, cilium.SchedCLS, false, whole, 14},
		{"EN10MB on a socket", bpf.Ethernet, cilium.SocketFilter, true, whole, 14},
		{"LINUX_SLL2 in a test run", bpf.LinuxSLL2, cilium.SocketFilter, false, cooked, 20},
		{"RAW in a test run", bpf.Raw, cilium.SocketFilter, false, network, 0},
		{"RAW on a socket", bpf.Raw, cilium.SocketFilter, true, network, 0},
	}
)

// etherType is the type of what is at the network header of a file's frame.
func (st stage) etherType(file []byte) uint16 {
	switch {
	case st.lt == bpf.Ethernet:
		return binary.BigEndian.Uint16(file[12:])
	case st.lt == bpf.LinuxSLL2:
		return binary.BigEndian.Uint16(file)
	case len(file) > 0 && file[0]>>4 == 6:
		return 0x86dd
	}
	return 0x0800
}

func TestTheScopeProgramIsTheSpecification(t *testing.T) {
	testutil.NeedRoot(t)
	for i, st := range stages {
		t.Run(st.name, func(t *testing.T) { st.test(t, world{rand.New(rand.NewPCG(uint64(i), 2008))}) })
	}
}

// test compares the program with Match on random scopes and frames.
func (st stage) test(t *testing.T, w world) {
	const programs, frames = 100, 400
	var in, out, strict int
	for range programs {
		s := w.scope()
		l := loadScope(t, bpf.View{LinkType: st.lt, Live: true}, s, nil, st.kind)
		var wire wire
		if st.wire {
			wire = l.wire(t)
		}
		var ran, accepted uint64
		for range frames {
			frame := w.frame()
			file := st.file(frame)
			got := false
			if st.wire {
				got = wire.carries(t, file)
			} else {
				verdict, ok := l.tryRun(t, frame)
				if !ok {
					continue
				}
				got = verdict != 0
			}
			ran++
			if got {
				accepted++
			}
			switch want := s.Match(st.lt, file) && !hiddenTag(st.lt, file, 0); {
			case want == got && want:
				in++
			case want == got:
				out++
			case want && endsInAddresses(file, st.net, st.etherType(file)):
				strict++
			default:
				t.Fatalf("Match says %v, the kernel %v\nframe %x\nscope %+v", want, got, frame, s)
			}
		}
		if got, want := l.counters(t), (ebpf.Counters{Seen: ran, InScope: accepted, Matched: accepted}); got != want {
			t.Fatalf("counters %+v, want %+v", got, want)
		}
	}
	t.Logf("%d programs: %d frames in scope, %d out, %d cut frames judged more strictly", programs, in, out, strict)
	if in < 2000 || out < 2000 || strict > (in+out)/20 {
		t.Error("the frames do not test much")
	}
}

func TestTheUsersProgramRunsOnlyInScopeAndItsVerdictIsKept(t *testing.T) {
	testutil.NeedRoot(t)
	own, foreign, third := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	s := bpf.Scope{Addrs: []netip.Prefix{netip.PrefixFrom(own, 32)}}
	user := bpf.Program{ // ldb [23]; jeq #17 jt 2 jf 3; ret #77; ret #0
		{Op: 0x30, K: 23}, {Op: 0x15, Jt: 0, Jf: 1, K: 17}, {Op: 0x06, K: 77}, {Op: 0x06},
	}
	l := loadScope(t, bpf.View{LinkType: bpf.Ethernet, Live: true}, s, user, cilium.SchedCLS)
	port := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 53) }
	for _, c := range []struct {
		frame []byte
		want  uint32
	}{
		{testutil.UDP4(port(own), port(foreign), nil), 77},
		{testutil.UDP4(port(foreign), port(own), nil), 77},
		{testutil.TCP4(port(own), port(foreign), testutil.SYN, nil), 0},
		{testutil.UDP4(port(third), port(foreign), nil), 0},
		{testutil.TCP4(port(third), port(foreign), testutil.SYN, nil), 0},
	} {
		if got := l.run(t, c.frame); got != c.want {
			t.Errorf("verdict %d, want %d, of %x", got, c.want, c.frame)
		}
	}
	if got, want := l.counters(t), (ebpf.Counters{Seen: 5, InScope: 3, Matched: 2}); got != want {
		t.Errorf("counters %+v, want %+v", got, want)
	}
}

func TestWithoutAScopeEveryFrameIsTheUsers(t *testing.T) {
	testutil.NeedRoot(t)
	for user, want := range map[*bpf.Program]ebpf.Counters{
		{}:                              {Seen: 1, InScope: 1, Matched: 1},
		{xbpf.RawInstruction{Op: 0x06}}: {Seen: 1, InScope: 1},
	} {
		spec, err := ebpf.Unscoped(*user)
		if err != nil {
			t.Fatal(err)
		}
		l := load(t, spec, cilium.SchedCLS)
		l.run(t, make([]byte, 60))
		if got := l.counters(t); got != want {
			t.Errorf("counters %+v, want %+v", got, want)
		}
	}
}

func TestAddressesChangeWhileTheProgramStays(t *testing.T) {
	testutil.NeedRoot(t)
	a, b := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.1.0/24")
	frame := func(src string) []byte {
		return testutil.UDP4(netip.MustParseAddrPort(src+":1"), netip.MustParseAddrPort("192.0.2.1:1"), nil)
	}
	l := loadScope(t, bpf.View{LinkType: bpf.Ethernet, Live: true}, bpf.Scope{}, nil, cilium.SchedCLS)
	for i, step := range []struct {
		addrs []netip.Prefix
		want  [2]bool
	}{{nil, [2]bool{}}, {[]netip.Prefix{a}, [2]bool{true, false}}, {[]netip.Prefix{a, b}, [2]bool{true, true}}} {
		l.put(t, step.addrs, ebpf.CapacityFor(nil))
		if got := [2]bool{l.run(t, frame("10.0.0.1")) != 0, l.run(t, frame("10.0.1.9")) != 0}; got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestAScopeMayHaveEveryVLAN(t *testing.T) {
	testutil.NeedRoot(t)
	s := bpf.Scope{}
	for id := range uint16(4095) {
		s.VLANs.IDs = append(s.VLANs.IDs, id)
	}
	l := loadScope(t, bpf.View{LinkType: bpf.Ethernet, Live: true}, s, nil, cilium.SchedCLS)
	frame := testutil.ARP(testutil.ARPRequest, netip.AddrFrom4([4]byte{}), netip.AddrFrom4([4]byte{}), testutil.BroadcastMAC)
	for id, want := range map[uint16]bool{0: true, 4094: true, 4095: false} {
		if got := l.run(t, testutil.Tagged(testutil.Tagged(frame, 0x8100, 1), 0x88a8, id)) != 0; got != want {
			t.Errorf("VLAN %d: in scope %v, want %v", id, got, want)
		}
	}
}

func ExampleSpec() {
	s := bpf.Scope{Policy: bpf.Classic}
	spec, err := ebpf.Spec(bpf.View{LinkType: bpf.Raw, Live: true}, s, nil, ebpf.CapacityFor(nil))
	fmt.Println(len(spec.Maps), spec.Programs[ebpf.Program].Type, err)
	// Output: 9 SocketFilter <nil>
}
