package bpf_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
)

// A mutation is a way to tamper with a program. It returns nil where it does
// not apply to instruction i.
type mutation struct {
	name  string
	apply func(s *source, p bpf.Program, i int) bpf.Program
}

var mutations = []mutation{
	{"a scope test is removed", func(s *source, p bpf.Program, i int) bpf.Program {
		if !jumps(p[i]) {
			return nil
		}
		p[i] = xbpf.RawInstruction{Op: 0x05, K: uint32(pick(s, p[i].Jt, p[i].Jf))}
		return p
	}},
	{"a jump is moved", func(s *source, p bpf.Program, i int) bpf.Program {
		if !jumps(p[i]) {
			return nil
		}
		to := uint8(s.IntN(min(len(p)-i-1, 256)))
		if s.IntN(2) == 0 {
			p[i].Jt = to
		} else {
			p[i].Jf = to
		}
		return p
	}},
	{"a jump's ways are swapped", func(s *source, p bpf.Program, i int) bpf.Program {
		if !jumps(p[i]) || p[i].Jt == p[i].Jf {
			return nil
		}
		p[i].Jt, p[i].Jf = p[i].Jf, p[i].Jt
		return p
	}},
	{"an address is widened", func(s *source, p bpf.Program, i int) bpf.Program {
		if !jumps(p[i]) {
			return nil
		}
		p[i].Op = pick[uint16](s, 0x15, 0x25, 0x35, 0x45)
		return p
	}},
	{"an address is another", func(s *source, p bpf.Program, i int) bpf.Program {
		if !jumps(p[i]) {
			return nil
		}
		p[i].K ^= 1 << s.IntN(32)
		return p
	}},
	{"a load is shifted", func(s *source, p bpf.Program, i int) bpf.Program {
		if p[i].Op&7 > 1 || p[i].Op&0xe0 != 0x20 {
			return nil
		}
		p[i].K += uint32(pick(s, -4, -2, -1, 1, 2, 4, 8, 16))
		return p
	}},
	{"a load is of another size", func(s *source, p bpf.Program, i int) bpf.Program {
		if p[i].Op&7 > 1 || p[i].Op&0xe0 != 0x20 {
			return nil
		}
		p[i].Op = pick[uint16](s, 0x20, 0x28, 0x30)
		return p
	}},
	{"a rejection accepts", func(s *source, p bpf.Program, i int) bpf.Program {
		if p[i] != (xbpf.RawInstruction{Op: 0x06}) {
			return nil
		}
		p[i].K = 65535
		return p
	}},
	{"a tail skips the prefix", func(s *source, p bpf.Program, i int) bpf.Program {
		if i > 0 {
			return nil
		}
		to := s.IntN(len(p))
		return slices.Concat(bpf.Program{{Op: 0x05, K: uint32(to)}}, p)
	}},
	{"a tail skips the prefix for some frames", func(s *source, p bpf.Program, i int) bpf.Program {
		if i > 0 {
			return nil
		}
		return slices.Concat(bpf.Program{{Op: 0x30, K: uint32(s.IntN(40))},
			{Op: 0x45, K: 1 << s.IntN(8), Jt: uint8(s.IntN(min(len(p), 256)))}}, p)
	}},
	{"an instruction is removed", func(s *source, p bpf.Program, i int) bpf.Program {
		if i == len(p)-1 {
			return nil
		}
		return slices.Delete(p, i, i+1)
	}},
	{"A is changed before a test", func(s *source, p bpf.Program, i int) bpf.Program {
		if !jumps(p[i]) {
			return nil
		}
		return slices.Insert(p, i, xbpf.RawInstruction{Op: pick[uint16](s, 0x54, 0x04, 0x44, 0x00, 0x87), K: uint32(s.IntN(16))})
	}},
	{"the metadata of another field is loaded", func(s *source, p bpf.Program, i int) bpf.Program {
		if p[i].Op != 0x20 || p[i].K < 0xfffff000 {
			return nil
		}
		p[i].K = 0xfffff000 + uint32(4*s.IntN(12))
		return p
	}},
}

func jumps(in xbpf.RawInstruction) bool { return in.Op&7 == 5 && in.Op != 0x05 }

func TestProveRefusesTamperedPrograms(t *testing.T) {
	s := newSource(seed() + 1)
	vm := bpf.VM{Dialect: bpf.Linux}
	unsafe := make(map[string]int)
	total, refusedSafe, safe := 0, 0, 0
	for round := 0; round < cases(t, 12_000); round++ {
		if s.IntN(50) == 0 {
			s = newSource(s.Uint64())
		}
		v := bpf.View{LinkType: pick(s, bpf.Ethernet, bpf.Ethernet, bpf.LinuxSLL2, bpf.Raw, bpf.Null), Live: s.IntN(3) == 0}
		v.Live = v.Live && v.LinkType != bpf.Null
		scope := s.scope()
		program, err := bpf.Compile(scope, v, bpf.Linux, pick(s, nil, bpf.Program{{Op: 0x30, K: 23}, {Op: 0x15, K: 6, Jf: 1}, {Op: 0x06, K: 99}, {Op: 0x06}}))
		if err != nil {
			t.Fatal(err)
		}
		m := mutations[s.IntN(len(mutations))]
		tampered := m.apply(s, slices.Clone(program), s.IntN(len(program)))
		if tampered == nil || tampered.Validate(bpf.Linux) != nil {
			continue
		}
		proved := bpf.Prove(tampered, scope, v)
		witness := s.foreignFrameAccepted(vm, tampered, scope, v)
		switch {
		case witness == nil && proved == nil:
			safe++
		case witness == nil:
			refusedSafe++
		case proved == nil:
			t.Fatalf("%s: proved, though it accepts %x\nscope %+v, %v\n%s\ntampered\n%s", m.name, witness, scope, v, program.Text(), tampered.Text())
		default:
			if !errors.As(proved, new(*bpf.UnprovedError)) {
				t.Fatalf("%s: %v", m.name, proved)
			}
			unsafe[m.name]++
			total++
		}
	}
	for _, m := range mutations {
		if unsafe[m.name] == 0 {
			t.Errorf("no unsafe program where %s: the corpus has a hole", m.name)
		}
	}
	if total < 200 {
		t.Errorf("only %d tampered programs", total)
	}
	t.Logf("%d unsafe programs refused %v; of the others %d proved, %d refused", total, unsafe, safe, refusedSafe)
}

// foreignFrameAccepted looks for a frame that is not in scope and that the
// program accepts all the same.
func (s *source) foreignFrameAccepted(vm bpf.VM, p bpf.Program, scope bpf.Scope, v bpf.View) []byte {
	for range 300 {
		frame := s.frame(v.LinkType)
		packet, inScope := frame, scope.Match(v.LinkType, frame)
		pkt := bpf.Packet{Data: packet, WireLen: uint32(len(packet))}
		if v.Live {
			var ok bool
			if pkt, ok = live(v.LinkType, frame); !ok {
				continue
			}
		}
		if !inScope && vm.Run(p, pkt) != 0 {
			return frame
		}
	}
	return nil
}

// live is what a Linux packet socket's program is given of a frame. ok is false
// if the kernel would not have made it so.
func live(lt bpf.LinkType, frame []byte) (_ bpf.Packet, ok bool) {
	u16 := func(i int) uint16 { return uint16(frame[i])<<8 | uint16(frame[i+1]) }
	pkt := bpf.Packet{Data: frame, Meta: bpf.Metadata{Ifindex: 3, Hatype: 1}}
	switch lt {
	case bpf.Ethernet:
		if len(frame) < 18 {
			return pkt, false
		}
		pkt.Meta.Protocol = u16(12)
		if tpid := u16(12); tpid == 0x8100 || tpid == 0x88a8 {
			pkt.Meta.VLANTagged, pkt.Meta.VLANTPID, pkt.Meta.VLANTag = true, tpid, u16(14)
			pkt.Meta.Protocol = u16(16)
			pkt.Data = slices.Concat(frame[:12], frame[16:])
		}
		pkt.Meta.NetOff = 14
	case bpf.LinuxSLL2:
		if len(frame) < 20 {
			return pkt, false
		}
		pkt.Meta.Protocol, pkt.Meta.PktType, pkt.Meta.Hatype = u16(0), frame[10], u16(8)
		pkt.Meta.Ifindex = uint32(u16(4))<<16 | uint32(u16(6))
		pkt.Data = frame[20:]
		pkt.WireLen = uint32(len(pkt.Data))
		return pkt, pkt.Meta.Protocol != 0x8100 && pkt.Meta.Protocol != 0x88a8 // see the test below
	}
	pkt.WireLen = uint32(len(pkt.Data))
	return pkt, true
}

func TestLivePrograms(t *testing.T) {
	s := newSource(seed() + 2)
	vm := bpf.VM{Dialect: bpf.Linux}
	compared, accepted, notLive := 0, 0, 0
	for compared < cases(t, 40_000) {
		lt := pick(s, bpf.Ethernet, bpf.Ethernet, bpf.LinuxSLL2, bpf.Raw)
		scope := s.scope()
		user, about := s.user(t, lt)
		if about == "program" { // may let X + k wrap, which Live does not follow
			continue
		}
		v := bpf.View{LinkType: lt, Live: true}
		program, err := bpf.Compile(scope, v, bpf.Linux, user)
		if errors.Is(err, bpf.ErrNotLive) {
			notLive++
			continue
		}
		if err != nil {
			t.Fatalf("scope %+v, %v, user %s: %v", scope, v, about, err)
		}
		for range framesEach {
			frame := s.frame(lt)
			pkt, ok := live(lt, frame)
			if !ok {
				continue
			}
			want := uint32(0)
			if scope.Match(lt, frame) {
				want = vm.Run(user, bpf.Packet{Data: frame, WireLen: uint32(len(frame))})
			}
			if got := vm.Run(program, pkt); got != want {
				t.Fatalf("scope %+v, %v, user %s\nframe %x: verdict %d, want %d\n%s", scope, v, about, frame, got, want, program.Text())
			}
			compared++
			if want != 0 {
				accepted++
			}
		}
	}
	if accepted < compared/100 {
		t.Errorf("only %d of %d verdicts accept: the test has lost its point", accepted, compared)
	}
	t.Logf("%d frames, %d accepted; %d programs not live", compared, accepted, notLive)
}

func TestACookedFrameWithATagInMetadataIsOutOfScope(t *testing.T) {
	scope := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}}
	v := bpf.View{LinkType: bpf.LinuxSLL2, Live: true}
	packet := bpf.Packet{Data: newSource(1).ipv4(), Meta: bpf.Metadata{Protocol: 0x0800, VLANTagged: true, VLANTag: 7}}
	copy(packet.Data[12:], []byte{10, 0, 0, 5})
	for vlan, want := range map[string]bool{"none": false, "8": false, "7": true, "any": true} {
		var err error
		if scope.VLANs, err = bpf.ParseVLANs(vlan); err != nil {
			t.Fatal(err)
		}
		p, err := bpf.Compile(scope, v, bpf.Linux, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := (bpf.VM{}).Run(p, packet) != 0; got != want {
			t.Errorf("--vlan %s: accepted %v, want %v", vlan, got, want)
		}
	}
}

// Where the tag of a live cooked frame is in the frame, if it is there, is not
// known: behind the TPID may already be the IP header.
func TestACookedFrameWithATagInItIsOutOfScope(t *testing.T) {
	scope := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, VLANs: bpf.VLANs{Any: true}}
	p, err := bpf.Compile(scope, bpf.View{LinkType: bpf.LinuxSLL2, Live: true}, bpf.Linux, nil)
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{0, 7, 8, 0}, newSource(1).ipv4()...)
	for _, tagged := range []bool{false, true} {
		for protocol, want := range map[uint16]bool{0x0800: true, 0x8100: false, 0x88a8: false} {
			meta := bpf.Metadata{Protocol: protocol, VLANTagged: tagged}
			if got := (bpf.VM{}).Run(p, bpf.Packet{Data: frame, Meta: meta}) != 0; got != want {
				t.Errorf("protocol %#x, tag in metadata %v: accepted %v", protocol, tagged, got)
			}
		}
	}
}

func TestScopeLinesAreThoseOfThePrefix(t *testing.T) {
	scope := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}, Policy: bpf.Classic}
	v := bpf.View{LinkType: bpf.Ethernet}
	user := bpf.Program{{Op: 0x30, K: 23}, {Op: 0x15, K: 6, Jf: 1}, {Op: 0x06, K: 99}, {Op: 0x06}}
	p, err := bpf.Compile(scope, v, bpf.FreeBSD, user)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := bpf.ScopeLines(p, scope, v)
	if err != nil {
		t.Fatal(err)
	}
	want := []bool{true, true, true, true, true, true, true, true, false, false, false, true}
	if !slices.Equal(lines, want) {
		t.Errorf("scope lines %v, want %v of\n%s", lines, want, p.Text())
	}
}
