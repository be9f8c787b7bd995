//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/testutil"
	"jailtap/loader"
)

const (
	crowdRounds = 101
	crowdFrames = 200 // in a turn
	crowdWarmUp = 100 // frames before them, since the crowd before has had the caches
	crowdRing   = 128 << 10
)

var crowdSizes = []int{1, 10, 100, 1000}

// A crowd is a number of captures at an interface of its own, each of one address, that
// all take some way to their packets.
type crowd struct {
	design string
	n      int
	in     *sender // frames that the interface receives
	out    *sender // frames that it sends
	close  func() error
	took   map[string][]time.Duration // a frame, by kind and round
}

// A design puts n captures at an interface of l.to.
type design struct {
	name string
	join func(l lab, ifname string, n int) (close func() error, err error)
}

var designs = []design{
	{"own sockets", joinTaps(loader.HubNever)},
	{"as is", joinTaps(loader.HubAuto)},
	{"hub", joinTaps(loader.HubAlways)},
	{"fan-out", joinGroup},
	{"tcx and taps", joinDevices},
}

// crowdKinds are frames, and whether they are received.
var crowdKinds = []struct {
	name     string
	received bool
	frame    []byte
}{
	{"foreign, received", true, testutil.UDP4(foreignA, foreignB, make([]byte, 18))},
	{"foreign, sent", false, testutil.UDP4(foreignA, foreignB, make([]byte, 18))},
	{"broadcast that nobody wants, received", true, testutil.UDP4(foreignA, netip.MustParseAddrPort("255.255.255.255:2000"), make([]byte, 18))},
	{"one's own, received", true, testutil.UDP4(foreignA, netip.AddrPortFrom(member(0), 2000), make([]byte, 18))},
}

var foreignA, foreignB = netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("192.0.2.2:2000")

// member is the address of a capture.
func member(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}) }

// benchCrowds prints what packets cost while many capture. Each design is measured in turns
// with nobody, and without the others: where a thousand sockets of their own run
// their programs the frames of all slow down for as long as those are there.
func benchCrowds(w io.Writer, l lab, sizes []int, rounds int) error {
	printCrowdsHead(w, rounds)
	for i, d := range designs {
		crowds, err := newCrowds(l, fmt.Sprint("crowd", i, "-"), d, sizes)
		if err == nil {
			err = timeCrowds(crowds, rounds)
		}
		for _, c := range crowds {
			err = errors.Join(err, c.leave())
		}
		if err != nil {
			return err
		}
		printCrowds(w, crowds)
	}
	return nil
}

func timeCrowds(crowds []*crowd, rounds int) error {
	for round := range rounds {
		for _, kind := range crowdKinds {
			for i := range crowds {
				c := crowds[(i+round)%len(crowds)] // none always comes behind the same one
				send := c.out
				if kind.received {
					send = c.in
				}
				took, err := timeFrames(send, kind.frame)
				if err != nil {
					return fmt.Errorf("%s, %d captures: %w", c.design, c.n, err)
				}
				c.took[kind.name] = append(c.took[kind.name], took)
			}
		}
	}
	return nil
}

// newCrowds makes one crowd of nobody, first, and one of each size. It returns those that
// it has made also with an error.
func newCrowds(l lab, ifnames string, d design, sizes []int) (crowds []*crowd, err error) {
	nobody := design{"nobody", func(lab, string, int) (func() error, error) { return func() error { return nil }, nil }}
	for _, n := range append([]int{0}, sizes...) {
		of := d
		if n == 0 {
			of = nobody
		}
		c := &crowd{design: of.name, n: n, took: map[string][]time.Duration{}}
		if err := c.gather(l, fmt.Sprint(ifnames, len(crowds)), of); err != nil {
			return crowds, fmt.Errorf("%s, %d captures: %w", of.name, n, err)
		}
		crowds = append(crowds, c)
	}
	return crowds, nil
}

func (c *crowd) gather(l lab, ifname string, d design) (err error) {
	if err = l.from.Veth(l.to, ifname, ifname); err != nil {
		return err
	}
	if c.in, err = newSender(l.from, ifname); err != nil {
		return err
	}
	if c.out, err = newSender(l.to, ifname); err != nil {
		return err
	}
	c.close, err = d.join(l, ifname, c.n)
	return err
}

func (c *crowd) leave() error {
	c.in.close()
	c.out.close()
	return c.close()
}

// timeFrames is what a frame takes. One that is sent into a veth pair has been seen by
// all when the call returns, on the same CPU.
func timeFrames(send *sender, frame []byte) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := send.frames(frame, crowdWarmUp); err != nil {
		return 0, err
	}
	start := time.Now()
	err := send.frames(frame, crowdFrames)
	return time.Since(start) * picoseconds / crowdFrames, err
}

// throttled runs do for 0 to n-1, many at once, since most wait for the kernel, but not
// too many for the programs that they free: the kernel keeps those until an RCU grace
// period has passed.
func throttled(n int, do func(i int) error) error {
	const atOnce = 64
	var errs []error
	for first := 0; first < n; first += atOnce {
		var g errgroup.Group
		for i := first; i < min(first+atOnce, n); i++ {
			g.Go(func() error { return do(i) })
		}
		errs = append(errs, g.Wait())
		time.Sleep(30 * time.Millisecond)
	}
	return errors.Join(errs...)
}

// joinTaps has captures opened as jailtap does, by other processes.
func joinTaps(hub loader.Hub) func(l lab, ifname string, n int) (func() error, error) {
	return func(l lab, ifname string, n int) (func() error, error) {
		var all []*captors
		closeAll := func() error {
			var errs []error
			for _, c := range all {
				errs = append(errs, c.close())
			}
			return errors.Join(errs...)
		}
		for first := 0; first < n; first += captorsMost {
			c, err := startCaptors(captorsConfig{l.to.Path, ifname, first, min(first+captorsMost, n), hub})
			if err != nil {
				return nil, errors.Join(err, closeAll())
			}
			all = append(all, c)
		}
		return closeAll, nil
	}
}

// joinGroup makes sockets with the capture's filters, of one group.
func joinGroup(l lab, ifname string, n int) (_ func() error, err error) {
	var objs designsObjects
	if err := loadDesignsObjects(&objs, nil); err != nil {
		return nil, err
	}
	fds := make([]int, 0, n+1)
	closeAll := func() error {
		return errors.Join(objs.Close(), throttled(len(fds), func(i int) error { return unix.Close(fds[i]) }))
	}
	err = l.to.Do(func() error {
		group := uint32(unix.PACKET_FANOUT_EBPF|unix.PACKET_FANOUT_FLAG_UNIQUEID) << 16
		for i := range n + 1 {
			fd, err := memberSocket(ifname, i-1)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			if err := enterGroup(fd, group); err != nil {
				return err
			}
			if i == 0 {
				id, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
				if err != nil {
					return err
				}
				group = unix.PACKET_FANOUT_EBPF<<16 | uint32(uint16(id))
				if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, objs.Choose.FD()); err != nil {
					return err
				}
				continue
			}
			if err := objs.Places.Put(member(i-1).AsSlice(), uint32(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return closeAll, nil
}

// enterGroup makes a socket one of a group (struct fanout_args of linux/if_packet.h).
func enterGroup(fd int, group uint32) error {
	const most = 4096
	args := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, group), most)
	return unix.SetsockoptString(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, string(args))
}

// memberSocket is a socket with the filter of capture i; -1 is one that takes nothing.
func memberSocket(ifname string, i int) (int, error) {
	if i < 0 {
		return filterSocket(ifname, bpf.Program{{Op: retK}})
	}
	scope := bpf.Scope{Addrs: []netip.Prefix{netip.PrefixFrom(member(i), 32)}, Policy: bpf.ClassicHost}
	p, err := bpf.Compile(scope, bpf.View{LinkType: bpf.Ethernet, Live: true}, bpf.Linux, bpf.Program{{Op: retK, K: bpf.KeepAll}})
	if err != nil {
		return -1, err
	}
	return filterSocket(ifname, p)
}

func printCrowdsHead(w io.Writer, rounds int) {
	fmt.Fprintf(w, "\n## Captures that a packet does not concern\n\nµs that sending a frame of %d bytes takes through a veth interface, of which so many capture, each of its own address;\n"+
		"medians of %d rounds; in parentheses what it is above nobody's, and beside one capture of the same design, both\n"+
		"medians over the rounds. Each design is measured by itself, in turns with nobody: compare what is in parentheses. One's\n"+
		"own frames are those of one capture, which reads them in the first three designs. The last two are other designs, as far\n"+
		"as they go: see HUB.md.\n\n", len(crowdKinds[0].frame), rounds)
	fmt.Fprint(w, "| design | captures |")
	for _, k := range crowdKinds {
		fmt.Fprintf(w, " %s |", k.name)
	}
	fmt.Fprintf(w, "\n| --- | ---: |%s\n", strings.Repeat(" ---: |", len(crowdKinds)))
}

// printCrowds prints nobody, the first, and one design.
func printCrowds(w io.Writer, crowds []*crowd) {
	nobody, one := crowds[0], crowds[1]
	for _, c := range crowds {
		fmt.Fprintf(w, "| %s | %d |", c.design, c.n)
		for _, k := range crowdKinds {
			above, ratio := compareRounds(c.took[k.name], nobody.took[k.name], one.took[k.name])
			fmt.Fprintf(w, " %.2f", us(median(slices.Clone(c.took[k.name]))))
			if c != nobody {
				fmt.Fprintf(w, " (%+.2f, %.2f×)", us(above), ratio)
			}
			fmt.Fprint(w, " |")
		}
		fmt.Fprintln(w)
	}
}

// compareRounds is the median of what each round took above that of nobody, and of its
// ratio to that of one.
func compareRounds(took, nobody, one []time.Duration) (above time.Duration, ratio float64) {
	var aboves []time.Duration
	var ratios []float64
	for i := range took {
		aboves = append(aboves, took[i]-nobody[i])
		ratios = append(ratios, float64(took[i])/float64(one[i]))
	}
	return median(aboves), median(ratios)
}

// picoseconds is the unit of times a frame, as a nanosecond is too coarse.
const picoseconds = 1000

// us is so many times a thousandth of a nanosecond in microseconds.
func us(d time.Duration) float64 { return float64(d) / picoseconds / 1000 }
