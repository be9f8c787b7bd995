//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf/asm"
	xbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/netlab"
)

// A lane is an interface with sockets at it, for one contestant at a time.
type lane struct {
	name    string
	ns      *netlab.Namespace
	flood   *flood
	filters []int // the sockets
}

type lanes []*lane

// mostContestants is how many lanes there are.
const mostContestants = 5

// newLanes returns what it has made also with an error, to be closed.
func newLanes(l lab) (list lanes, err error) {
	for i := range mostContestants {
		lane := &lane{name: fmt.Sprint("bench", i), ns: l.to}
		list = append(list, lane)
		if err := lane.open(l); err != nil {
			return list, err
		}
	}
	return list, nil
}

func (ln *lane) open(l lab) (err error) {
	if err := l.from.Veth(l.to, ln.name, ln.name); err != nil {
		return err
	}
	if ln.flood, err = newFloodOf(scattering(), l.to, ln.name); err != nil {
		return err
	}
	return l.to.Do(func() error {
		for range sockets {
			fd, err := filterSocket(ln.name, bpf.Program{{Op: retK}})
			if err != nil {
				return err
			}
			ln.filters = append(ln.filters, fd)
		}
		return nil
	})
}

func (list lanes) close() error {
	var errs []error
	for _, l := range list {
		if l.flood != nil {
			errs = append(errs, l.flood.close())
		}
		for _, fd := range l.filters {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// attach gives each socket a filter in the place of what it has.
func (ln *lane) attach(filter func(fd int) error) error {
	for _, fd := range ln.filters {
		if err := filter(fd); err != nil {
			return err
		}
	}
	return nil
}

// turn has frames come in, and is the ns that each took for each socket. That is the time of
// this thread alone, so that it does not matter what else runs on the machine meanwhile. All
// filters run on it before the call returns.
func (ln *lane) turn(frame []byte) (took float64, err error) {
	defer withoutSignals()()
	start := threadTime()
	err = ln.flood.burst(frame, frames)
	return float64(threadTime()-start) / (frames * sockets), err
}

func threadTime() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	return time.Duration(now.Nano())
}

// scattering is an XDP program that lets frames pass. Those from 198.18.0.0/16 or 2001:2::/48
// (for benchmarks: RFC 2544, RFC 5180) it gives random addresses that scopes could have, but
// do not: so one meets in turn with all parts of trees and maps.
func scattering() asm.Instructions {
	const headers = 14 + 40                                          // bytes, with IPv6's; IPv4 has as many with TCP's
	const src4, dst4, src6, dst6 = 14 + 12, 14 + 16, 14 + 8, 14 + 24 // offsets of addresses
	const data, random, prefix = asm.R6, asm.R0, asm.R1
	word := func(b ...byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }
	scatter := func(at int16, first byte) asm.Instructions {
		return asm.Instructions{
			asm.FnGetPrandomU32.Call(),
			asm.And.Imm32(random, word(0, 0xff, 0xff, 0xff)),
			asm.Or.Imm32(random, word(first, 0, 0, 3)),
			asm.StoreMem(data, at, random, asm.Word),
		}
	}
	insns := asm.Instructions{
		asm.LoadMem(data, asm.R1, 0, asm.Word), // struct xdp_md: data, data_end
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R3, data),
		asm.Add.Imm(asm.R3, headers),
		asm.JGT.Reg(asm.R3, asm.R2, "pass"),
		asm.LoadMem(asm.R1, data, src4, asm.Half),
		asm.JNE.Imm32(asm.R1, int32(binary.NativeEndian.Uint16([]byte{198, 18})), "not IPv4"),
	}
	insns = append(insns, scatter(src4, 10)...)
	insns = append(insns, scatter(dst4, 10)...)
	insns = append(insns, asm.Ja.Label("pass"),
		asm.LoadMem(asm.R1, data, src6, asm.Word).WithSymbol("not IPv4"),
		asm.JNE.Imm32(asm.R1, word(0x20, 0x01, 0x00, 0x02), "pass"))
	insns = append(insns, scatter(src6+12, 0)...)
	insns = append(insns, scatter(dst6+12, 0)...)
	return append(insns,
		asm.Mov.Imm32(prefix, word(0x20, 0x01, 0x0d, 0xb8)),
		asm.StoreMem(data, src6, prefix, asm.Word),
		asm.StoreMem(data, dst6, prefix, asm.Word),
		asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"),
		asm.Return())
}

// Opcodes of linux/bpf_common.h.
const (
	retK     = 0x06
	classRet = 0x06
	classOf  = 0x07
)

// rejecting is the program with all of its verdicts 0, so that what is
// measured is the filter and not what the kernel does with the frame.
func rejecting(p bpf.Program) bpf.Program {
	q := make(bpf.Program, len(p))
	for i, ins := range p {
		if q[i] = ins; ins.Op&classOf == classRet {
			q[i] = xbpf.RawInstruction{Op: retK}
		}
	}
	return q
}

// filterSocket is a packet socket with a filter at an interface of the calling
// thread's namespace.
func filterSocket(ifname string, p bpf.Program) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := attachFilter(fd, p); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := bindTo(fd, ifname, unix.ETH_P_ALL); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func attachFilter(fd int, p bpf.Program) error {
	code := make([]unix.SockFilter, len(p))
	for i, ins := range p {
		code[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
		return fmt.Errorf("attach %d instructions: %w", len(code), err)
	}
	return nil
}
