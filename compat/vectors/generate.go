package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
)

// Generate makes so many vectors of kind interp, scope or accept, one a line.
// The same arguments give the same bytes. The answers are those of bpf.VM and
// bpf.Scope.Match: vectors to compare systems with, not to judge those two by.
func Generate(seed uint64, n int, kind string) ([]byte, error) {
	g := generator{rand.New(rand.NewPCG(seed, 1993))}
	make, ok := map[string]func(id string) any{"interp": g.interp, "scope": g.scope, "accept": g.accept}[kind]
	if !ok {
		return nil, fmt.Errorf("unknown kind %q: known are interp, scope and accept", kind)
	}
	var lines bytes.Buffer
	encode := json.NewEncoder(&lines)
	for i := range n {
		if err := encode.Encode(make(fmt.Sprintf("%s-%d-%d", kind, seed, i+1))); err != nil {
			return nil, err
		}
	}
	return lines.Bytes(), nil
}

// The lines, as README.md describes them.
type (
	genInterp struct {
		ID      string    `json:"id"`
		Kind    string    `json:"kind"`
		Prog    [][4]uint `json:"prog"`
		Pkt     string    `json:"pkt"`
		WireLen int       `json:"wirelen"`
		Valid   bool      `json:"valid"`
		Ret     *uint32   `json:"ret,omitempty"`
		RetMbuf *uint32   `json:"ret_mbuf,omitempty"`
		Linux   Linux     `json:"linux,omitempty"`
	}
	genScope struct {
		ID        string       `json:"id"`
		Kind      string       `json:"kind"`
		LinkType  bpf.LinkType `json:"linktype"`
		Addrs     []netip.Addr `json:"addrs"`
		Policy    string       `json:"policy"`
		Filter    string       `json:"filter"`
		Snaplen   uint32       `json:"snaplen"`
		User      [][4]uint    `json:"user"`
		Pkt       string       `json:"pkt"`
		WireLen   int          `json:"wirelen"`
		WantScope bool         `json:"want_scope"`
		WantUser  uint32       `json:"want_user"`
		Want      uint32       `json:"want"`
		WantMbuf  *uint32      `json:"want_mbuf,omitempty"`
		LinuxUser Linux        `json:"linux_user,omitempty"`
	}
	genAccept struct {
		ID       string       `json:"id"`
		Kind     string       `json:"kind"`
		LinkType bpf.LinkType `json:"linktype"`
		Filter   string       `json:"filter"`
		User     [][4]uint    `json:"user"`
		Pkts     []string     `json:"pkts"`
		WireLens []int        `json:"wirelens"`
		Results  []uint32     `json:"results"`
	}
)

var (
	flat    = bpf.VM{Dialect: bpf.FreeBSD}
	receive = bpf.VM{Dialect: bpf.FreeBSD, Receive: true}
)

// marks are what is special of a program and a packet, given the verdict in a
// flat buffer.
func marks(p bpf.Program, pkt bpf.Packet, ret uint32) (mbuf *uint32, linux Linux) {
	if v := receive.Run(p, pkt); v != ret {
		mbuf = &v
	}
	switch {
	case p.Validate(bpf.Linux) != nil:
		linux = LinuxRefuses
	case bpf.VM{Dialect: bpf.Linux}.Run(p, pkt) != ret:
		linux = LinuxDiffers
	}
	return mbuf, linux
}

func rows(p bpf.Program) [][4]uint {
	rows := make([][4]uint, len(p))
	for i, in := range p {
		rows[i] = [4]uint{uint(in.Op), uint(in.Jt), uint(in.Jf), uint(in.K)}
	}
	return rows
}

type generator struct{ *rand.Rand }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) interp(id string) any {
	p, data := g.program(), g.bytes(g.IntN(40))
	v := genInterp{ID: id, Kind: "interp", Prog: rows(p), Pkt: hex.EncodeToString(data), WireLen: len(data)}
	if p.Validate(bpf.FreeBSD) == nil {
		pkt := bpf.Packet{Data: data, WireLen: uint32(len(data))}
		ret := flat.Run(p, pkt)
		v.Valid, v.Ret = true, &ret
		v.RetMbuf, v.Linux = marks(p, pkt, ret)
	}
	return v
}

func (g generator) scope(id string) any {
	lt := pick(g, bpf.Ethernet, bpf.Ethernet, bpf.Ethernet, pick(g, bpf.LinkTypes()...))
	s := bpf.Scope{Policy: bpf.ClassicHost}
	if lt == bpf.Ethernet {
		s.Policy = bpf.Classic
	}
	v := genScope{ID: id, Kind: "scope", LinkType: lt, Policy: s.Policy.String(), Snaplen: 262144}
	for range 1 + g.IntN(4) {
		a := g.addr()
		v.Addrs = append(v.Addrs, a)
		s.Addrs = append(s.Addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	p, frame := bpf.Program(nil), g.frame(lt)
	switch g.IntN(8) {
	case 0:
		v.Filter = "asm:empty"
	case 1, 2:
		v.Filter = "asm:random"
		for p = g.program(); p.Validate(bpf.FreeBSD) != nil; p = g.program() {
		}
	default:
		v.Filter, p = g.test(len(frame))
	}
	pkt := bpf.Packet{Data: frame, WireLen: uint32(len(frame))}
	v.User, v.Pkt, v.WireLen = rows(p), hex.EncodeToString(frame), len(frame)
	v.WantScope, v.WantUser = s.Match(lt, frame), flat.Run(p, pkt)
	mbuf, linux := marks(p, pkt, v.WantUser)
	v.LinuxUser = linux
	if v.WantScope {
		v.Want, v.WantMbuf = v.WantUser, mbuf
	}
	return v
}

func (g generator) accept(id string) any {
	lt := bpf.Ethernet
	v := genAccept{ID: id, Kind: "accept", LinkType: lt}
	var p bpf.Program
	v.Filter, p = g.test(60)
	v.User = rows(p)
	for range 1 + g.IntN(5) {
		frame := g.frame(lt)
		v.Pkts, v.WireLens = append(v.Pkts, hex.EncodeToString(frame)), append(v.WireLens, len(frame))
		v.Results = append(v.Results, flat.Run(p, bpf.Packet{Data: frame, WireLen: uint32(len(frame))}))
	}
	return v
}

// test is a program that a filter expression might become: it compares a few
// fields.
func (g generator) test(size int) (name string, p bpf.Program) {
	const jeq, jset, ret = 0x15, 0x45, 0x06
	fields := 1 + g.IntN(4)
	for left := fields; left > 0; left-- {
		load := pick[uint16](g, 0x20, 0x28, 0x30)
		jump := xbpf.RawInstruction{Op: pick[uint16](g, jeq, jset), K: pick(g, 0x0800, 0x0806, 1, 6, 17, g.Uint32N(256))}
		if g.IntN(2) == 0 {
			jump.Jt = uint8(2*(left-1) + 1)
		} else {
			jump.Jf = uint8(2*(left-1) + 1)
		}
		p = append(p, xbpf.RawInstruction{Op: load, K: pick(g, 12, 23, uint32(g.IntN(size+1)))}, jump)
	}
	return fmt.Sprintf("asm:fields-%d", fields), append(p, xbpf.RawInstruction{Op: ret, K: 262144}, xbpf.RawInstruction{Op: ret})
}

// program is short and random, and now and then not valid.
func (g generator) program() bpf.Program {
	ops := []uint16{0x00, 0x01, 0x20, 0x28, 0x28, 0x28, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x61, 0x80, 0x81, 0xb1, 0x02, 0x03,
		0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x84, 0x94, 0x9c, 0xa4, 0xac,
		0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x06, 0x16, 0x07, 0x87, 0x0e, 0x8c}
	p := make(bpf.Program, 1+g.IntN(12))
	for i := range p {
		behind := len(p) - 1 - i
		in := xbpf.RawInstruction{Op: pick(g, ops...), K: pick(g, 0, 1, 4, 14, 31, 33, 0x0800, g.Uint32N(40), g.Uint32N(16), g.Uint32())}
		if behind == 0 && g.IntN(20) > 0 {
			in.Op = pick[uint16](g, 0x06, 0x16)
		}
		switch class := in.Op & 7; {
		case class == 5 && behind > 0:
			in.Jt, in.Jf = uint8(g.IntN(behind)), uint8(g.IntN(behind))
			if in.Op == 0x05 {
				in.K = uint32(g.IntN(behind))
			}
		case class == 2, class == 3, in.Op == 0x60, in.Op == 0x61:
			in.K %= 17
		}
		p[i] = in
	}
	return p
}

func (g generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// addr is one of a few, so that frames are about jails.
func (g generator) addr() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(g.IntN(2)), byte(g.IntN(8))})
}

// headers are what frames with IPv4 start with, per link type.
var headers = map[bpf.LinkType][]byte{
	bpf.Ethernet:  {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0},
	bpf.Null:      {2, 0, 0, 0},
	bpf.Loop:      {0, 0, 0, 2},
	bpf.Raw:       {},
	bpf.LinuxSLL:  {0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0},
	bpf.LinuxSLL2: {8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0},
}

// frame is IPv4 mostly, whole mostly.
func (g generator) frame(lt bpf.LinkType) []byte {
	frame := bytes.Clone(headers[lt])
	if lt == bpf.Ethernet {
		frame[0] |= byte(g.IntN(2))
		frame[13] = pick[byte](g, 0, 0, 0, 0, 6)
	}
	ip := g.bytes(20 + g.IntN(30))
	ip[0], ip[9] = 0x45, pick[byte](g, 1, 6, 17)
	copy(ip[12:], g.addr().AsSlice())
	copy(ip[16:], g.addr().AsSlice())
	frame = append(frame, ip...)
	if g.IntN(10) == 0 {
		frame = frame[:g.IntN(len(frame))]
	}
	return frame
}
