package bpf_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"jailtap/bpf"
	"jailtap/compat/vectors"

	"golang.org/x/sys/unix"
)

// A datagram socket pair is the kernel's interpreter without root: delivery is
// synchronous, so that reading without waiting tells the verdict.
type socketPair struct {
	from, to int
	attached int
	buf      [1 << 16]byte
}

func newSocketPair(t *testing.T) *socketPair {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return &socketPair{from: fds[0], to: fds[1]}
}

// attach replaces the filter. The kernel frees the old one after an RCU grace
// period; more than a thousand that wait for it can hang some kernels, so it
// gets time to.
func (s *socketPair) attach(p bpf.Program) error {
	if s.attached++; s.attached%64 == 0 {
		time.Sleep(30 * time.Millisecond)
	}
	filter := make([]unix.SockFilter, len(p), len(p)+1)
	for i, ins := range p {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(p)), Filter: unsafe.SliceData(filter)}
	return unix.SetsockoptSockFprog(s.to, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog)
}

// pass sends a packet and says how much of it arrived; ok is false if the
// filter rejected it.
func (s *socketPair) pass(t *testing.T, pkt []byte) (size int, ok bool) {
	t.Helper()
	if err := unix.Sendto(s.from, pkt, 0, nil); err != nil {
		t.Fatalf("send: %v", err)
	}
	size, _, err := unix.Recvfrom(s.to, s.buf[:], 0)
	if errors.Is(err, unix.EAGAIN) {
		return 0, false
	}
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return size, true
}

// adRandom and adCPU, which no test can foretell.
const adRandom, adCPU = 0xfffff000 + 56, 0xfffff000 + 36

func foretellable(p bpf.Program) bool {
	for _, ins := range p {
		if ins.Op&^0x18 == 0x20 && (ins.K == adRandom || ins.K == adCPU) {
			return false
		}
	}
	return true
}

func TestTheKernelDoesWhatTheVMDoes(t *testing.T) {
	set, err := vectors.Public()
	if err != nil {
		t.Fatal(err)
	}
	s := newSocketPair(t)
	packets := [][]byte{nil, {0x45}, make([]byte, 64)}
	for i := range packets[2] {
		packets[2][i] = byte(3*i + 1)
	}
	accepted, refused, verdicts := 0, 0, 0
	random := rand.New(rand.NewPCG(1993, 1))
	for _, i := range random.Perm(len(set.Interp))[:1500] {
		v := set.Interp[i]
		p := bpf.Program(v.Prog)
		valid, err := p.Validate(bpf.Linux), s.attach(p)
		if (valid == nil) != (err == nil) {
			t.Errorf("%s: we say %v, the kernel %v\n%s", v.ID, valid, err, p.Text())
			continue
		}
		if err != nil {
			refused++
			continue
		}
		accepted++
		if !foretellable(p) {
			continue
		}
		for _, pkt := range append(packets, v.Pkt) {
			verdict := bpf.VM{Dialect: bpf.Linux}.Run(p, bpf.Packet{Data: pkt, WireLen: uint32(len(pkt))})
			want := min(int(verdict), len(pkt))
			if size, ok := s.pass(t, pkt); ok != (verdict != 0) || size != want {
				t.Errorf("%s: packet %x: the kernel kept %d (%v), we %d\n%s", v.ID, pkt, size, ok, want, p.Text())
			}
			verdicts++
		}
	}
	if accepted != 1143 || refused != 357 || verdicts != 4572 {
		t.Errorf("%d programs accepted, %d refused, %d verdicts", accepted, refused, verdicts)
	}
}

// Programs that return what they load, one byte of it a packet's length: the
// vectors have few loads of metadata.
func TestTheKernelLoadsMetadataAsTheVMDoes(t *testing.T) {
	s := newSocketPair(t)
	random := rand.New(rand.NewPCG(1993, 2))
	pkt := make([]byte, 2048)
	verdicts := 0
	for range 512 {
		// Small numbers make netlink attributes that are found.
		for i := range pkt[:256] {
			pkt[i] = byte(random.IntN(12)) * byte(1-i%2)
		}
		k := 0xfffff000 + 4*random.Uint32N(16)
		if k == adRandom || k == adCPU {
			continue
		}
		p := bpf.Program{
			{Op: 0x00, K: random.Uint32N(64)}, // ld #
			{Op: 0x01, K: random.Uint32N(12)}, // ldx #
			{Op: 0x30, K: k},                  // ldb [k]
			{Op: 0x04, K: 1},                  // add #1
			{Op: 0x16},                        // ret a
		}
		if err := s.attach(p); err != nil {
			t.Fatalf("%v\n%s", err, p.Text())
		}
		verdict := bpf.VM{}.Run(p, bpf.Packet{Data: pkt, WireLen: uint32(len(pkt))})
		if size, ok := s.pass(t, pkt); ok != (verdict != 0) || size != int(verdict) {
			t.Errorf("packet %x: the kernel kept %d (%v), we %d\n%s", pkt[:256], size, ok, verdict, p.Text())
		}
		verdicts++
	}
	if verdicts != 462 {
		t.Errorf("%d verdicts", verdicts)
	}
}
