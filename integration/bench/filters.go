//go:build linux

package main

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"

	xbpf "golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
	"jailtap/internal/testutil"
)

const (
	userExpr = "tcp port 80"
	sockets  = 16  // that each frame is offered to
	rounds   = 61  // of the turns
	frames   = 500 // in a turn
)

// A contestant is a filter on sockets at an interface of its own.
type contestant struct {
	addrs   int // in the scope; 0 for the baseline
	who     string
	program bpf.Program
	send    *sender
	filters []int                      // the sockets
	above   map[string][]time.Duration // by kind of frame: per frame and socket, above the baseline of the same round
}

// benchFilters prints the table of filters.
func benchFilters(w io.Writer, l lab) error {
	contestants, err := newContestants()
	if err != nil {
		return err
	}
	for i, c := range contestants {
		if err := c.setUp(l, fmt.Sprint("bench", i)); err != nil {
			return err
		}
		defer c.close()
	}
	kinds := frameKinds()
	for range rounds {
		for _, kind := range kinds {
			if err := playRound(contestants, kind); err != nil {
				return err
			}
		}
	}
	printFilters(w, contestants, kinds)
	return nil
}

// newContestants returns the baseline, which rejects everything, first.
func newContestants() ([]*contestant, error) {
	list := []*contestant{{who: "ret #0", program: bpf.Program{{Op: retK}}}}
	for _, n := range []int{1, 10, 100} {
		scope := scopeOf(n)
		user, err := pcapexpr.Compile(userExpr, bpf.Ethernet, 0)
		if err != nil {
			return nil, err
		}
		ours, err := bpf.Compile(scope, bpf.View{LinkType: bpf.Ethernet, Live: true}, bpf.Linux, user)
		if err != nil {
			return nil, err
		}
		theirs, err := pcapexpr.CompileOptimized(fmt.Sprintf("(%s) and (%s)", scope.Expr(bpf.Ethernet), userExpr), bpf.Ethernet, 0)
		if err != nil {
			return nil, err
		}
		list = append(list, &contestant{addrs: n, who: "jailtap", program: ours},
			&contestant{addrs: n, who: "libpcap", program: theirs})
	}
	return list, nil
}

// scopeOf has n IPv4 addresses, of which no two are neighbours. The one that
// is used, 10.0.0.1, is in the middle of the list.
func scopeOf(n int) bpf.Scope {
	var s bpf.Scope
	for i := range n {
		addr := netip.AddrFrom4([4]byte{10, byte(i - n/2), 0, 1})
		s.Addrs = append(s.Addrs, netip.PrefixFrom(addr, 32))
	}
	return s
}

// A frameKind is a frame that all filters are asked about.
type frameKind struct {
	name  string
	frame []byte
}

func frameKinds() []frameKind {
	jail, a, b := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:2000")
	return []frameKind{
		{"in scope", testutil.TCP4(jail, b, testutil.ACK, nil)},
		{"out of scope", testutil.TCP4(a, b, testutil.ACK, nil)},
		{"not IP", testutil.Ethernet(testutil.MACOf(a.Addr()), testutil.MACOf(b.Addr()), 0x88cc, make([]byte, 46))},
	}
}

// setUp makes the contestant's interface and sockets.
func (c *contestant) setUp(l lab, ifname string) (err error) {
	if err := l.from.Veth(l.to, ifname, ifname); err != nil {
		return err
	}
	c.above = make(map[string][]time.Duration)
	if c.send, err = newSender(l.from, ifname); err != nil {
		return err
	}
	return l.to.Do(func() error {
		for range sockets {
			fd, err := filterSocket(ifname, rejecting(c.program))
			if err != nil {
				return err
			}
			c.filters = append(c.filters, fd)
		}
		return nil
	})
}

// close frees programs slowly: the kernel keeps them until an RCU grace period
// has passed.
func (c *contestant) close() {
	c.send.close()
	for _, fd := range c.filters {
		unix.Close(fd)
	}
	time.Sleep(30 * time.Millisecond)
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

// playRound gives every contestant a turn. A frame sent into a veth pair is
// filtered before the call returns, on the same CPU.
func playRound(contestants []*contestant, kind frameKind) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var baseline time.Duration
	for i, c := range contestants {
		start := time.Now()
		if err := c.send.frames(kind.frame, frames); err != nil {
			return err
		}
		took := time.Since(start)
		if i == 0 {
			baseline = took
			continue
		}
		c.above[kind.name] = append(c.above[kind.name], (took-baseline)*picoseconds/(frames*sockets))
	}
	return nil
}

// picoseconds is the unit of contestant.above, as a nanosecond is too coarse.
const picoseconds = 1000

func printFilters(w io.Writer, contestants []*contestant, kinds []frameKind) {
	fmt.Fprintf(w, "\n## Filters\n\nThe scope (policy full, IPv4 addresses that are not neighbours) and `%s`: as jailtap injects it,\n"+
		"with its test for VLAN tags, and as libpcap compiles `(scope) and (%s)`. Time is ns a frame and socket above `ret #0`,\n"+
		"at %d AF_PACKET sockets; in parentheses the instructions executed.\n\n", userExpr, userExpr, sockets)
	fmt.Fprint(w, "| addresses | filter | instructions |")
	for _, k := range kinds {
		fmt.Fprintf(w, " %s |", k.name)
	}
	fmt.Fprint(w, "\n| ---: | --- | ---: | ---: | ---: | ---: |\n")
	for _, c := range contestants[1:] {
		fmt.Fprintf(w, "| %d | %s | %d |", c.addrs, c.who, len(c.program))
		for _, k := range kinds {
			_, executed := bpf.VM{}.Count(c.program, bpf.Packet{Data: k.frame, WireLen: uint32(len(k.frame))})
			fmt.Fprintf(w, " %.1f (%d) |", float64(median(c.above[k.name]))/picoseconds, executed)
		}
		fmt.Fprintln(w)
	}
}
