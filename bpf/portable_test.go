package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
	"jailtap/compat/vectors"
)

// Each place where the systems differ, with the programs that show it.
func TestEveryDifferenceIsFoundAndNormalized(t *testing.T) {
	const ldW, ldH, ldB, ldxMsh, ldxImm, txa, retA, retK = 0x20, 0x28, 0x30, 0xb1, 0x01, 0x87, 0x16, 0x06
	packet := []byte{0x45, 1, 2, 3, 4, 5, 6, 7}
	for _, c := range []struct {
		name  string
		p     bpf.Program
		cause bpf.Cause // "": none
		linux bool      // takes the program as it is
		flat  uint32    // verdict of FreeBSD's flat buffer, and of Linux once normalized
		mbuf  uint32    // verdict of FreeBSD's receive path
	}{
		{"no instructions are no filter", nil, bpf.CauseNoFilter, false, bpf.KeepAll, bpf.KeepAll},
		{"lsh #32 shifts by nothing", bpf.Program{{Op: 0, K: 5}, {Op: 0x64, K: 32}, {Op: retA}}, bpf.CauseShift, false, 5, 5},
		{"rsh #33 shifts by 1", bpf.Program{{Op: 0, K: 4}, {Op: 0x74, K: 33}, {Op: retA}}, bpf.CauseShift, false, 2, 2},
		{"lsh x by 33 shifts by 1 on both", bpf.Program{{Op: ldxImm, K: 33}, {Op: 0, K: 4}, {Op: 0x6c}, {Op: retA}}, "", true, 8, 8},
		{"M[3] is 0 before it is written", bpf.Program{{Op: 0x60, K: 3}, {Op: 4, K: 7}, {Op: retA}}, bpf.CauseMemory, false, 7, 7},
		{"M[3] is written on one branch only", bpf.Program{{Op: 0x30}, {Op: 0x15, Jt: 0, Jf: 1, K: 1}, {Op: 2, K: 3}, {Op: 0x61, K: 3}, {Op: txa}, {Op: 4, K: 9}, {Op: retA}}, bpf.CauseMemory, false, 9, 9},
		{"M[3] is read in code that nothing reaches", bpf.Program{{Op: 5, K: 1}, {Op: 0x60, K: 3}, {Op: retK, K: 4}}, "", true, 4, 4},
		{"M[3] is read behind a ret", bpf.Program{{Op: retK, K: 4}, {Op: 0x60, K: 3}, {Op: retK}}, bpf.CauseMemory, false, 4, 4},
		{"ld [SKF_AD_PKTTYPE]", bpf.Program{{Op: ldW, K: 0xfffff004}, {Op: retK, K: 3}}, bpf.CauseMetadata, true, 0, 0},
		{"ldh [SKF_AD_PKTTYPE]", bpf.Program{{Op: ldH, K: 0xfffff004}, {Op: retK, K: 3}}, bpf.CauseMetadata, true, 0, 3},
		{"ldb [0xffffffff], which means nothing on Linux", bpf.Program{{Op: ldB, K: 0xffffffff}, {Op: retK, K: 3}}, bpf.CauseMetadata, false, 0, 0},
		{"ldb [SKF_NET_OFF]", bpf.Program{{Op: ldB, K: 0xfff00000}, {Op: retK, K: 3}}, bpf.CauseMetadata, true, 0, 0},
		{"ldb [SKF_LL_OFF]", bpf.Program{{Op: ldB, K: 0xffe00000}, {Op: retK, K: 3}}, bpf.CauseMetadata, true, 0, 0},
		{"ldx 4*([SKF_NET_OFF]&0xf)", bpf.Program{{Op: ldxMsh, K: 0xfff00000}, {Op: retK, K: 3}}, bpf.CauseMetadata, true, 0, 0},
		{"ld [0x7fffffff] is behind every end", bpf.Program{{Op: ldW, K: 0x7fffffff}, {Op: retK, K: 3}}, "", true, 0, 0},
		{"ld [0x80000000] is behind every end", bpf.Program{{Op: ldW, K: 0x80000000}, {Op: retK, K: 3}}, "", true, 0, 0},
		{"ld [5] of 8 bytes", bpf.Program{{Op: ldW, K: 5}, {Op: retK, K: 3}}, "", true, 0, 0},
		{"ldb [8] of 8 bytes", bpf.Program{{Op: ldB, K: 8}, {Op: retK, K: 3}}, "", true, 0, 0},
		{"ldx 4*([8]&0xf) of 8 bytes", bpf.Program{{Op: ldxMsh, K: 8}, {Op: retK, K: 3}}, "", true, 0, 0},
		{"ldh [x + 7] of 8 bytes", bpf.Program{{Op: 0x48, K: 7}, {Op: retK, K: 3}}, "", true, 0, 0},
		{"A and X are 0 at the start", bpf.Program{{Op: 0x0c}, {Op: 4, K: 3}, {Op: retA}}, "", true, 3, 3},
		{"ld #pktlen", bpf.Program{{Op: 0x80}, {Op: retA}}, "", true, 8, 8},
		{"ldh [7] of 8 bytes", bpf.Program{{Op: ldH, K: 7}, {Op: retK, K: 3}}, bpf.CauseHalfWord, true, 0, 3},
		{"not ip, of 8 bytes", bpf.Program{{Op: ldH, K: 12}, {Op: 0x15, Jt: 1, K: 0x800}, {Op: retK, K: 9}, {Op: retK}}, bpf.CauseHalfWord, true, 0, 9},
		{"ip, of 8 bytes", bpf.Program{{Op: ldH, K: 12}, {Op: 0x15, Jf: 1, K: 0x800}, {Op: retK, K: 9}, {Op: retK}}, "", true, 0, 0},
		{"ldh [12] and then a byte behind", bpf.Program{{Op: ldH, K: 12}, {Op: ldB, K: 23}, {Op: retK, K: 9}}, "", true, 0, 0},
		{"ldb [x + 0xfffffffc]", bpf.Program{{Op: ldxImm, K: 5}, {Op: 0x50, K: 0xfffffffc}, {Op: retA}}, bpf.CauseIndex, true, 0, 1},
		{"ldb [x + 14], X from a header's length", bpf.Program{{Op: ldxMsh}, {Op: 0x50, K: 14}, {Op: retA}}, "", true, 0, 0},
		{"div by X == 0 rejects", bpf.Program{{Op: 0, K: 5}, {Op: 0x3c}, {Op: retK, K: 9}}, "", true, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			places := bpf.Portable(c.p)
			if c.cause == "" && len(places) > 0 || c.cause != "" && (len(places) != 1 || places[0].Cause != c.cause) {
				t.Errorf("differences %v, want one of cause %q", places, c.cause)
			}
			pkt := bpf.Packet{Data: packet, WireLen: uint32(len(packet))}
			if c.p.Validate(bpf.FreeBSD) != nil || (c.p.Validate(bpf.Linux) == nil) != c.linux {
				t.Errorf("FreeBSD says %v, Linux %v", c.p.Validate(bpf.FreeBSD), c.p.Validate(bpf.Linux))
			}
			if flat, mbuf := flatVM.Run(c.p, pkt), receiveVM.Run(c.p, pkt); flat != c.flat || mbuf != c.mbuf {
				t.Errorf("flat %d, received %d; want %d, %d", flat, mbuf, c.flat, c.mbuf)
			}
			normal, err := bpf.Normalize(c.p)
			if err != nil || normal.Validate(bpf.Linux) != nil {
				t.Fatalf("normalized: %v, %v\n%s", err, normal.Validate(bpf.Linux), normal.Text())
			}
			want := c.flat
			if c.cause == bpf.CauseIndex { // stays as it is
				want = c.mbuf
			}
			if got := (bpf.VM{}).Run(normal, pkt); got != want {
				t.Errorf("normalized, Linux gives %d, want %d\n%s", got, want, normal.Text())
			}
		})
	}
}

var (
	flatVM    = bpf.VM{Dialect: bpf.FreeBSD}
	receiveVM = bpf.VM{Dialect: bpf.FreeBSD, Receive: true}
)

func TestAProgramThatFreeBSDRefusesIsNotNormalized(t *testing.T) {
	long := make(bpf.Program, 513)
	for i := range long {
		long[i].Op = 0x06
	}
	if _, err := bpf.Normalize(long); err == nil || err.Error() != "invalid program: it has 513 instructions; freebsd takes 512" {
		t.Errorf("513 instructions: %v", err)
	}
	if places := bpf.Portable(long); len(places) != 1 || places[0].Cause != bpf.CauseLength {
		t.Errorf("513 instructions: %v", places)
	}
	if places := bpf.Portable(append(long, make(bpf.Program, 4096)...)); len(places) != 0 {
		t.Errorf("refused by both, but %v", places)
	}
	if _, err := bpf.Normalize(bpf.Program{{Op: 0x0e}}); err == nil {
		t.Error("ret x is normalized")
	}
	if normal, err := bpf.Normalize(long[:512]); err != nil || len(normal) != 512 {
		t.Errorf("512 instructions become %d (%v)", len(normal), err)
	}
}

// What Portable lets pass gives the same verdict everywhere, and what it does
// not is normalized.
func TestPortableProgramsMeanTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(1993, 4))
	portable, same := 0, 0
	for range 60_000 {
		p := randomProgram(random)
		if p.Validate(bpf.FreeBSD) != nil {
			continue
		}
		places := bpf.Portable(p)
		if len(places) == 0 {
			portable++
		}
		normal, err := bpf.Normalize(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := normal.Validate(bpf.Linux); err != nil {
			t.Fatalf("%v\n%s", err, p.Text())
		}
		indexed := slices.ContainsFunc(places, func(d bpf.Difference) bool { return d.Cause == bpf.CauseIndex })
		for size := range 20 {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(random.IntN(256)) >> (8 * random.IntN(2))
			}
			pkt := bpf.Packet{Data: data, WireLen: uint32(size), Meta: bpf.Metadata{Protocol: 7, PktType: 3, Ifindex: 2, Hatype: 1, NetOff: 4, Mark: 9}}
			flat, received, linux := flatVM.Run(p, pkt), receiveVM.Run(p, pkt), bpf.VM{}.Run(p, pkt)
			if len(places) == 0 {
				same++
				if flat != received || flat != linux {
					t.Fatalf("flat %d, received %d, Linux %d; packet %x\n%s", flat, received, linux, data, p.Text())
				}
			}
			if got := (bpf.VM{}).Run(normal, pkt); got != flat && !indexed {
				t.Fatalf("normalized %d, flat %d; packet %x\n%s\n%s", got, flat, data, p.Text(), normal.Text())
			}
		}
	}
	t.Logf("%d programs are portable, %d verdicts", portable, same)
	if portable < 5000 {
		t.Error("the test has lost its point")
	}
}

// randomProgram is short, and mostly valid.
func randomProgram(r *rand.Rand) bpf.Program {
	ops := []uint16{0x00, 0x01, 0x20, 0x28, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x61, 0x80, 0x81, 0xb1, 0x02, 0x03,
		0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x84, 0x94, 0x9c, 0xa4, 0xac,
		0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x06, 0x16, 0x07, 0x87}
	p := make(bpf.Program, 2+r.IntN(7))
	for i := range p {
		left := len(p) - 1 - i
		in := xbpf.RawInstruction{Op: ops[r.IntN(len(ops))]}
		if left == 0 {
			in.Op = []uint16{0x06, 0x16}[r.IntN(2)]
		}
		switch class := in.Op & 7; {
		case class == 5 && left > 0:
			in.Jt, in.Jf = uint8(r.IntN(left)), uint8(r.IntN(left))
			in.K = uint32(r.IntN(3))
			if in.Op == 5 {
				in.K = uint32(r.IntN(left))
			}
		case class == 2, class == 3, in.Op == 0x60, in.Op == 0x61:
			in.K = uint32(r.IntN(3))
		default:
			in.K = []uint32{0, 1, 2, uint32(r.IntN(16)), uint32(r.IntN(16)), uint32(r.IntN(16)), 33, 255, 1 << 31, 0xffffffff,
				0xffe00000 + uint32(r.IntN(9)), 0xfff00000 + uint32(r.IntN(9)), 0xfffff000 + uint32(4*r.IntN(17))}[r.IntN(13)]
		}
		p[i] = in
	}
	return p
}

func TestVectorsThatLinuxRefusesAreNormalized(t *testing.T) {
	set, err := vectors.Public()
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	check := func(id string, p bpf.Program, pkt bpf.Packet, says vectors.Linux, want uint32) {
		normal, err := bpf.Normalize(p)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		places := fmt.Sprint(bpf.Portable(p))
		if says != vectors.LinuxSame && places == "[]" {
			t.Errorf("%s: Linux says %q, but no difference is found\n%s", id, says, p.Text())
		}
		if says != vectors.LinuxRefuses {
			return
		}
		refused++
		if got := (bpf.VM{}).Run(normal, pkt); got != want {
			t.Errorf("%s: normalized %d, want %d\n%s", id, got, want, normal.Text())
		}
	}
	for _, v := range set.Interp {
		if v.Valid {
			check(v.ID, bpf.Program(v.Prog), v.Packet(), v.Linux, v.Ret)
		}
	}
	for _, v := range set.Scope {
		check(v.ID, bpf.Program(v.User), v.Packet(), v.LinuxUser, v.WantUser)
	}
	if refused < 250 {
		t.Errorf("%d vectors that Linux refuses", refused)
	}
	t.Logf("%d vectors that Linux refuses", refused)
}
