package bpf_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
)

// A source makes random scopes, frames, expressions and programs that have
// something to do with each other: they draw from the same few addresses.
type source struct {
	*rand.Rand
	addrs4, addrs6 []netip.Addr
}

func newSource(seed uint64) *source {
	s := &source{Rand: rand.New(rand.NewPCG(seed, 2008))}
	for range 6 {
		s.addrs4 = append(s.addrs4, netip.AddrFrom4([4]byte{10, 0, byte(s.IntN(2)), byte(s.IntN(8))}))
		a := netip.MustParseAddr("2001:db8::").As16()
		a[7], a[11], a[15] = byte(s.IntN(2)), byte(s.IntN(2)), byte(s.IntN(4))
		s.addrs6 = append(s.addrs6, netip.AddrFrom16(a))
	}
	s.addrs4 = append(s.addrs4, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1"))
	s.addrs6 = append(s.addrs6, netip.MustParseAddr("::"), netip.MustParseAddr("ff02::1"))
	return s
}

func pick[T any](s *source, from ...T) T { return from[s.IntN(len(from))] }

func (s *source) must(addrs ...string) (parsed []netip.Addr) {
	for _, a := range addrs {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	return parsed
}

func (s *source) addr4() netip.Addr { return pick(s, s.addrs4...) }
func (s *source) addr6() netip.Addr { return pick(s, s.addrs6...) }

func (s *source) scope() bpf.Scope {
	sc := bpf.Scope{Policy: pick(s, bpf.Full, bpf.Full, bpf.Classic, bpf.ClassicHost)}
	for range pick(s, 0, 1, 1, 1, 2, 3, 8) {
		addr := s.addr4()
		if s.IntN(3) == 0 {
			addr = s.addr6()
		}
		bits := addr.BitLen()
		if s.IntN(4) == 0 {
			bits = s.IntN(bits + 1)
		}
		sc.Addrs = append(sc.Addrs, netip.PrefixFrom(addr, bits).Masked())
	}
	switch s.IntN(8) {
	case 0:
		sc.VLANs.Any = true
	case 1:
		sc.VLANs.IDs = []uint16{0, 7}[s.IntN(2):]
	}
	return sc
}

// frame is a frame of the link type, whole or cut off.
func (s *source) frame(lt bpf.LinkType) []byte {
	network, etherType := s.packet()
	var frame []byte
	switch lt {
	case bpf.Ethernet:
		frame = append(frame, s.mac()...)
		frame = append(frame, 2, 0, 0, 0, 0, byte(s.IntN(2)))
		frame = s.tags(frame)
		frame = binary.BigEndian.AppendUint16(frame, etherType)
	case bpf.LinuxSLL:
		frame = append(frame, 0, byte(s.IntN(5)), 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0)
		frame = s.tags(frame)
		frame = binary.BigEndian.AppendUint16(frame, etherType)
	case bpf.LinuxSLL2:
		rest := []byte{0, 0, 0, 0, 0, 3, 0, 1, byte(s.IntN(5)), 6, 2, 0, 0, 0, 0, 1, 0, 0}
		tagged := binary.BigEndian.AppendUint16(s.tags(nil), etherType)
		frame = append(append(tagged[:2:2], rest...), tagged[2:]...)
	case bpf.Null:
		frame = binary.LittleEndian.AppendUint32(frame, s.family(etherType))
	case bpf.Loop:
		frame = binary.BigEndian.AppendUint32(frame, s.family(etherType))
	}
	frame = append(frame, network...)
	for len(frame) < minWhole {
		frame = append(frame, byte(s.Uint32()))
	}
	if s.IntN(10) == 0 {
		frame = frame[:s.IntN(len(frame)+1)]
	}
	return frame
}

func (s *source) family(etherType uint16) uint32 {
	switch etherType {
	case 0x0800:
		return 2
	case 0x86dd:
		return pick[uint32](s, 10, 10, 10, 24, 28, 30)
	}
	return uint32(s.IntN(32))
}

func (s *source) mac() []byte {
	return pick(s, []byte{2, 0, 0, 0, 0, 1}, []byte{2, 0, 0, 0, 0, 1}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		[]byte{1, 0, 0x5e, 0, 0, 1}, []byte{0x33, 0x33, 0, 0, 0, 1}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xfe})
}

// tags adds VLAN tags, mostly none.
func (s *source) tags(frame []byte) []byte {
	for range pick(s, 0, 0, 0, 0, 1, 1, 2, 3) {
		frame = binary.BigEndian.AppendUint16(frame, pick[uint16](s, 0x8100, 0x8100, 0x88a8, 0x9100))
		frame = binary.BigEndian.AppendUint16(frame, pick[uint16](s, 0, 7, 0xe007, 8))
	}
	return frame
}

// packet is what is behind the link-level header.
func (s *source) packet() (packet []byte, etherType uint16) {
	switch s.IntN(8) {
	case 0, 1, 2:
		return s.ipv4(), 0x0800
	case 3, 4:
		return s.ipv6(), 0x86dd
	case 5:
		return s.arp(), pick[uint16](s, 0x0806, 0x0806, 0x8035)
	case 6:
		return s.ipv4(), pick[uint16](s, 0x86dd, 0x0806, 0x8847, 0x0800)
	default:
		b := make([]byte, s.IntN(60))
		for i := range b {
			b[i] = byte(s.Uint32())
		}
		return b, pick[uint16](s, 0x0800, 0x86dd, 0x0806, 46, 0x8864, 0x8100)
	}
}

func (s *source) ipv4() []byte {
	proto := pick[byte](s, 1, 6, 6, 17, 17, 50, 132)
	b := []byte{0x45, 0, 0, 0, 0, 1, pick[byte](s, 0, 0, 0x40, 0x20, 0), pick[byte](s, 0, 0, 0, 9), 64, proto, 0, 0}
	src, dst := s.addr4().As4(), s.addr4().As4()
	b = append(append(b, src[:]...), dst[:]...)
	if s.IntN(6) == 0 {
		b[0] = 0x46
		b = append(b, 1, 1, 1, 1)
	}
	b = append(b, s.transport()...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func (s *source) ipv6() []byte {
	proto := pick[byte](s, 58, 6, 6, 17, 17, 44, 0)
	b := []byte{0x60, 0, 0, 0, 0, 0, proto, 64}
	src, dst := s.addr6().As16(), s.addr6().As16()
	b = append(append(b, src[:]...), dst[:]...)
	return append(b, s.transport()...)
}

func (s *source) arp() []byte {
	spa, tpa := s.addr4().As4(), s.addr4().As4()
	b := []byte{0, 1, 8, 0, 6, 4, 0, byte(1 + s.IntN(2)), 2, 0, 0, 0, 0, 1}
	b = append(b, spa[:]...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, tpa[:]...)
}

func (s *source) transport() []byte {
	b := binary.BigEndian.AppendUint16(nil, s.port())
	b = binary.BigEndian.AppendUint16(b, s.port())
	b = append(b, 0, 8, 0, 0, 0, 0, 0, 0, 0x50, pick[byte](s, 2, 0x12, 0x18, 4), 0, 0, 0, 0, 0, 0)
	for range s.IntN(20) {
		b = append(b, byte(s.Uint32()))
	}
	return b
}

func (s *source) port() uint16 { return pick[uint16](s, 22, 53, 80, 443, 1234, 5060) }

// expression is a pcap expression without words that only some link types
// know.
func (s *source) expression() string { return s.expr(s.IntN(4)) }

func (s *source) expr(depth int) string {
	if depth > 0 {
		switch s.IntN(4) {
		case 0:
			return "not (" + s.expr(depth-1) + ")"
		case 1:
			return "(" + s.expr(depth-1) + ") or (" + s.expr(depth-1) + ")"
		default:
			return "(" + s.expr(depth-1) + ") and (" + s.expr(depth-1) + ")"
		}
	}
	host := func() string {
		return pick(s, "", "src ", "dst ", "ip ", "ip6 ", "arp ") + "host "
	}
	switch s.IntN(16) {
	case 0, 1:
		h := host()
		if strings.HasPrefix(h, "ip6") {
			return h + s.addr6().String()
		}
		return h + s.addr4().String()
	case 2:
		return pick(s, "", "src ", "dst ") + "host " + s.addr6().String()
	case 3:
		return fmt.Sprintf("%snet 10.0.%d.0/%d", pick(s, "", "src ", "dst "), s.IntN(2), 24)
	case 4:
		return fmt.Sprintf("%sport %d", pick(s, "", "src ", "dst ", "tcp ", "udp "), s.port())
	case 5:
		return fmt.Sprintf("portrange %d-%d", s.IntN(100), 100+s.IntN(1000))
	case 6:
		return pick(s, "ip", "ip6", "arp", "rarp")
	case 7:
		return pick(s, "tcp", "udp", "icmp", "icmp6", "sctp", "esp")
	case 8:
		return fmt.Sprintf("tcp[13] & %d != 0", 1+s.IntN(31))
	case 9:
		return fmt.Sprintf("ip[%d:%d] %s %d", s.IntN(30), pick(s, 1, 2, 4), pick(s, "=", ">", "<", "!="), s.IntN(300))
	case 10:
		return fmt.Sprintf("ip6[%d] = %d", s.IntN(44), s.IntN(256))
	case 11:
		return fmt.Sprintf("len %s %d", pick(s, ">", "<", ">="), s.IntN(120))
	case 12:
		return "ip[6:2] & 0x1fff = 0"
	case 13:
		return "ip[12:4] = ip[16:4]"
	case 14:
		return fmt.Sprintf("(ip[2:2] - ((ip[0] & 0xf) << 2)) %s %d", pick(s, ">", "="), s.IntN(60))
	default:
		return fmt.Sprintf("ip proto %d", s.IntN(60))
	}
}

// program is a valid program that means nothing in particular, for both
// dialects: it looks at A, X and M[] in all ways, as nobody would.
func (s *source) program() bpf.Program {
	n := 2 + s.IntN(24)
	p := make(bpf.Program, 0, n)
	var stored uint32
	for i := range n {
		left := n - 1 - i
		k := pick[uint32](s, 0, 1, 2, 12, 14, 20, 23, 26, 30, uint32(s.IntN(80)), s.Uint32())
		in := xbpf.RawInstruction{Op: pick[uint16](s, 0x20, 0x20, 0x28, 0x28, 0x30, 0x30, 0x00, 0x01, 0x40, 0x48, 0x50, 0x80, 0x81, 0xb1,
			0x60, 0x61, 0x02, 0x03, 0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x84, 0x94, 0xa4,
			0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0x9c, 0xac, 0x07, 0x87,
			0x15, 0x15, 0x15, 0x25, 0x35, 0x45, 0x45, 0x1d, 0x2d, 0x3d, 0x4d, 0x05, 0x06, 0x16), K: k}
		if left == 0 {
			in.Op = pick[uint16](s, 0x06, 0x16)
		}
		switch in.Op & 0xe7 {
		case 0x20, 0x40, 0xa1: // loads from the frame
			in.K = pick(s, k%80, k%80, k%80, k)
			if in.K >= 0xfff00000 {
				in.K = 99
			}
		}
		switch op := in.Op; {
		case op == 0x60 || op == 0x61: // only what was surely written
			if stored == 0 {
				in = xbpf.RawInstruction{Op: 0x02, K: 0}
			}
			in.K = 0
		case op == 0x02 || op == 0x03:
			in.K = uint32(s.IntN(16))
		case op == 0x34 || op == 0x94:
			in.K = max(k, 1)
		case op == 0x64 || op == 0x74:
			in.K %= 32
		case op == 0x05:
			in.K = uint32(s.IntN(left))
		case op&7 == 5:
			in.Jt, in.Jf = uint8(s.IntN(left)), uint8(s.IntN(left))
			in.K = pick(s, k, 0x0800, 0x86dd, 6, 17, 0x0a000001)
		}
		if i == 0 && s.IntN(2) == 0 && left > 0 { // a cell to read from
			in = xbpf.RawInstruction{Op: 0x02, K: 0}
			stored = 1
		}
		p = append(p, in)
	}
	return p
}
