//go:build amd64 || arm64

package agent

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// image is memory from address base on.
type image []byte

const base = 0x10000

func (m image) read(addr uint64, into []byte) unix.Errno {
	if addr < base || addr-base > uint64(len(m)) || uint64(len(m))-(addr-base) < uint64(len(into)) {
		return unix.EFAULT
	}
	copy(into, m[addr-base:])
	return 0
}

// fprogImage has a sock_fprog, and behind it a program.
func fprogImage(count uint16, pointer uint64, p bpf.Program) image {
	m := make(image, 16)
	binary.NativeEndian.PutUint16(m, count)
	binary.NativeEndian.PutUint64(m[8:], pointer)
	for _, in := range p {
		m = binary.NativeEndian.AppendUint16(m, in.Op)
		m = append(m, in.Jt, in.Jf)
		m = binary.NativeEndian.AppendUint32(m, in.K)
	}
	return m
}

// udp is `ip proto 17` on Ethernet.
var udp = bpf.Program{{Op: 0x28, K: 12}, {Op: 0x15, Jf: 3, K: 0x800}, {Op: 0x30, K: 23}, {Op: 0x15, Jf: 1, K: 17}, {Op: 6, K: 0x40000}, {Op: 6}}

func TestAProgramIsReadOutOfMemory(t *testing.T) {
	n := uint16(len(udp))
	got, errno := readProgram(fprogImage(n, base+16, udp).read, base, 16)
	if errno != 0 || !slices.Equal(got, udp) {
		t.Errorf("%v, %v", got, errno)
	}
	for name, c := range map[string]struct {
		image  image
		addr   uint64
		length int32
		want   unix.Errno
	}{
		"an optlen too short":           {fprogImage(n, base+16, udp), base, 15, unix.EINVAL},
		"an optlen too long":            {fprogImage(n, base+16, udp), base, 17, unix.EINVAL},
		"a negative optlen":             {fprogImage(n, base+16, udp), base, -16, unix.EINVAL},
		"no sock_fprog there":           {nil, 0, 16, unix.EFAULT},
		"half a sock_fprog":             {fprogImage(n, base+16, nil)[:9], base, 16, unix.EFAULT},
		"no instructions":               {fprogImage(0, base+16, udp), base, 16, unix.EINVAL},
		"more than may be":              {fprogImage(4097, base+16, make(bpf.Program, 4097)), base, 16, unix.EINVAL},
		"as many as can be said":        {fprogImage(65535, base+16, udp), base, 16, unix.EINVAL},
		"a null pointer":                {fprogImage(n, 0, udp), base, 16, unix.EINVAL},
		"a pointer into nowhere":        {fprogImage(n, 1<<62, udp), base, 16, unix.EFAULT},
		"a pointer to the end":          {fprogImage(n, ^uint64(0), udp), base, 16, unix.EFAULT},
		"instructions half there":       {fprogImage(n, base+16, udp[:3]), base, 16, unix.EFAULT},
		"instructions that are no such": {fprogImage(1, base+16, bpf.Program{{Op: 0xffff}}), base, 16, unix.EINVAL},
		"no return":                     {fprogImage(1, base+16, udp), base, 16, unix.EINVAL},
	} {
		if p, errno := readProgram(c.image.read, c.addr, c.length); errno != c.want || p != nil {
			t.Errorf("%s: %v, %v; want %v", name, p, errno, c.want)
		}
	}
}

func TestMemoryIsReadOnce(t *testing.T) {
	m := fprogImage(uint16(len(udp)), base+16, udp)
	touched := make([]int, len(m))
	once := func(addr uint64, into []byte) unix.Errno {
		for i := range into {
			touched[addr-base+uint64(i)]++
		}
		return m.read(addr, into)
	}
	if _, errno := readProgram(once, base, 16); errno != 0 || slices.Max(touched) != 1 {
		t.Errorf("%v; bytes were read so many times: %v", errno, touched)
	}
}

func FuzzReadProgram(f *testing.F) {
	f.Add([]byte(fprogImage(uint16(len(udp)), base+16, udp)), uint64(base), int32(16))
	f.Add([]byte(fprogImage(65535, base+16, udp)), uint64(base), int32(16))
	f.Add([]byte(fprogImage(1, base, nil)), uint64(base), int32(16))
	f.Fuzz(func(t *testing.T, m []byte, addr uint64, length int32) {
		p, errno := readProgram(image(m).read, addr, length)
		if (errno == 0) != (p != nil) {
			t.Fatalf("%v, %v", p, errno)
		}
		if errno == 0 && p.Validate(bpf.Linux) != nil {
			t.Fatalf("not valid: %v", p)
		}
	})
}
