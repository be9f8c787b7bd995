//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
	"jailtap/internal/testutil"
	"jailtap/loader"
)

const (
	userExpr = "tcp port 80"
	sockets  = 16  // that each frame is offered to
	rounds   = 5   // in a set-up
	frames   = 256 // in a turn
)

// A match is between all ways to filter for one scope.
type match struct {
	ipv6   bool
	addrs  int
	setUps int // of the filters, from nothing
}

// matches are those of the table. There are fewer of IPv6, which is to show that it is no
// different. Where it is about fractions of a ns, there are more set-ups.
var matches = []match{
	{false, 1, 101}, {false, 4, 101}, {false, 8, 101}, {false, 10, 101}, {false, 100, 41},
	{false, 500, 15}, {false, 1000, 11}, {false, 100_000, 15}, {false, 1_000_000, 15},
	{true, 1, 101}, {true, 8, 101}, {true, 500, 15}, {true, 1_000_000, 15},
}

// mostOfLibpcap is how many addresses an expression has at most: the time that libpcap takes
// for it grows with their square.
const mostOfLibpcap = 1000

// A contestant is one way to filter.
type contestant struct {
	who    string
	chosen bool // by engine auto
	length int  // of its program
	attach func(fd int) error
	close  func()
	why    string // it is not measured

	classic bpf.Program // what is attached, if it is that; else
	spec    *cilium.CollectionSpec
	maps    map[string]*cilium.Map // that its programs share

	// By kind of frame: ns a frame and socket above the baseline, the median of each set-up.
	above map[string][]float64
}

// benchFilters prints the tables of filters.
func benchFilters(w io.Writer, l lab, matches []match, rounds int) error {
	lanes, err := newLanes(l)
	defer lanes.close()
	if err != nil {
		return err
	}
	printFiltersHead(w)
	for i, m := range matches {
		if i == 0 || m.ipv6 != matches[i-1].ipv6 {
			printFiltersTable(w, m)
		}
		var contestants []*contestant
		err := l.to.Do(func() (err error) {
			contestants, err = m.play(lanes, rounds)
			return err
		})
		if err != nil {
			return fmt.Errorf("%d addresses: %w", m.addrs, err)
		}
		m.print(w, contestants)
	}
	return nil
}

// play measures all contestants of a match.
func (m match) play(lanes lanes, rounds int) ([]*contestant, error) {
	contestants, err := m.contestants(lanes)
	defer func() {
		for _, c := range contestants {
			c.close()
		}
	}()
	if err != nil {
		return nil, err
	}
	playing := slices.DeleteFunc(slices.Clone(contestants), func(c *contestant) bool { return c.why != "" })
	for range m.setUps {
		if err := setUp(lanes, playing, rounds, m.kinds()); err != nil {
			return nil, err
		}
	}
	return contestants, nil
}

// setUp measures the contestants with filters that are loaded and attached anew, in an order
// and to sockets that chance decides. Where the kernel puts a program, and which others lie in
// the caches beside it, makes a difference of some ns that is the same for as long as the
// program is there: so one learns little by measuring the same programs again.
func setUp(lanes lanes, contestants []*contestant, rounds int, kinds []frameKind) error {
	rand.Shuffle(len(lanes), func(i, j int) { lanes[i], lanes[j] = lanes[j], lanes[i] })
	for _, i := range rand.Perm(len(contestants)) {
		if err := lanes[i].attach(contestants[i].attach); err != nil {
			return fmt.Errorf("%s: %w", contestants[i].who, err)
		}
	}
	above := make([]map[string][]float64, len(contestants))
	for range rounds {
		for _, kind := range kinds {
			took := make([]float64, len(contestants))
			for _, i := range rand.Perm(len(contestants)) {
				var err error
				if took[i], err = lanes[i].turn(kind.frame); err != nil {
					return err
				}
			}
			for i := range contestants {
				if above[i] == nil {
					above[i] = make(map[string][]float64)
				}
				above[i][kind.name] = append(above[i][kind.name], took[i]-took[0])
			}
		}
	}
	for i, c := range contestants {
		for kind, values := range above[i] {
			c.above[kind] = append(c.above[kind], median(values))
		}
	}
	time.Sleep(gracePeriod)
	return nil
}

// gracePeriod is about how long the kernel keeps programs that are not used any more. Of too
// many at once it does not get rid in time.
const gracePeriod = 20 * time.Millisecond

// contestants are those of a match. The first is the baseline, which rejects everything.
func (m match) contestants(lanes lanes) (list []*contestant, err error) {
	user, err := pcapexpr.Compile(userExpr, bpf.Ethernet, 0)
	if err != nil {
		return nil, err
	}
	list = append(list, classic("ret #0", bpf.Program{{Op: retK}}))
	if m.addrs == 1 && !m.ipv6 {
		list = append(list, classic("no scope", user))
	}
	scope := m.scope()
	if m.addrs <= mostOfLibpcap {
		theirs, err := pcapexpr.CompileOptimized(fmt.Sprintf("(%s) and (%s)", scope.Expr(bpf.Ethernet), userExpr), bpf.Ethernet, 0)
		if err != nil {
			return list, err
		}
		list = append(list, classic("libpcap", theirs))
	}
	ours, err := bpf.Compile(scope, liveEthernet, bpf.Linux, user)
	var tooMany *bpf.TooManyAddressesError
	if err != nil && !errors.As(err, &tooMany) {
		return list, err
	}
	list = append(list, classic("engine cbpf", ours))
	maps, err := withMaps("engine ebpf", scope, user)
	if maps != nil {
		list = append(list, maps)
	}
	if err != nil {
		return list, err
	}
	chosen, err := lanes[0].engine(scope)
	for _, c := range list {
		c.chosen = c.who == "engine "+string(chosen)
	}
	return list, err
}

var liveEthernet = bpf.View{LinkType: bpf.Ethernet, Live: true}

// classic is a contestant with a classic program, if there is one and the kernel takes it.
func classic(who string, p bpf.Program) *contestant {
	c := &contestant{who: who, length: len(p), classic: p, above: make(map[string][]float64), close: func() {}}
	rejecting := rejecting(p)
	c.attach = func(fd int) error { return attachFilter(fd, rejecting) }
	switch {
	case len(p) == 0 || len(p) > bpf.Linux.MaxInstructions():
		c.why = "too long"
	case errors.Is(onASocket(c.attach), unix.ENOMEM):
		c.why = "refused" // net.core.optmem_max
	}
	return c
}

// onASocket tries to attach a filter.
func onASocket(attach func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(fd)
}

// engine is the one that auto chooses.
func (l *lane) engine(scope bpf.Scope) (loader.Engine, error) {
	t, err := loader.Open(loader.Config{Interface: l.name, Namespace: l.ns, Scope: scope, Hub: loader.HubNever,
		Filter: func(lt bpf.LinkType) (bpf.Program, error) { return pcapexpr.Compile(userExpr, lt, 0) }})
	if err != nil {
		return "", err
	}
	return t.Engine(), t.Close()
}

// scope has so many addresses, of which no two are neighbours. The one that is used,
// jailAddr, is in the middle of the list.
func (m match) scope() bpf.Scope {
	const space, seed = 1 << 22, 1
	var s bpf.Scope
	for _, i := range rand.New(rand.NewPCG(seed, seed)).Perm(space)[:m.addrs] {
		s.Addrs = append(s.Addrs, single(m.addr(uint32(i)<<2|2)))
	}
	s.Addrs[m.addrs/2] = single(m.jailAddr())
	return s
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (m match) jailAddr() netip.Addr { return m.addr(1) }

// addr is one of the addresses that are in the scope, or could be.
func (m match) addr(host uint32) netip.Addr {
	a := netip.MustParseAddr("10.0.0.0").AsSlice()
	if m.ipv6 {
		a = netip.MustParseAddr("2001:db8::").AsSlice()
	}
	for i := range 3 {
		a[len(a)-1-i] = byte(host >> (8 * i))
	}
	addr, _ := netip.AddrFromSlice(a)
	return addr
}

// A frameKind is a frame that all filters are asked about.
type frameKind struct {
	name  string
	frame []byte
}

func (m match) kinds() []frameKind {
	jail, a, b := netip.AddrPortFrom(m.jailAddr(), 80), netip.MustParseAddrPort("198.18.0.1:80"), netip.MustParseAddrPort("198.18.0.2:2000")
	tcp := testutil.TCP4
	if m.ipv6 {
		a, b, tcp = netip.MustParseAddrPort("[2001:2::1]:80"), netip.MustParseAddrPort("[2001:2::2]:2000"), testutil.TCP6
	}
	return []frameKind{
		{"in scope", tcp(jail, b, testutil.ACK, nil)},
		{"out of scope", tcp(a, b, testutil.ACK, nil)}, // see scattering
		{"not IP", testutil.Ethernet(testutil.MACOf(a.Addr()), testutil.MACOf(b.Addr()), 0x88cc, make([]byte, 46))},
	}
}

func printFiltersHead(w io.Writer) {
	fmt.Fprintf(w, "\n## Filters\n\nA scope (policy full, addresses that are not neighbours) and `%s`: as each engine of jailtap has it,\n"+
		"with the test for VLAN tags, and as libpcap compiles `(scope) and (%s)`. Which engine auto chooses is marked.\n"+
		"Time is ns a frame and socket above `ret #0`, at %d AF_PACKET sockets, of which each has a program of its own:\n"+
		"the median of many set-ups with new programs, and in brackets the quartiles; in parentheses the instructions\n"+
		"executed, where they are classic. Frames come in %d at a time, as from a driver; out of scope each has other\n"+
		"addresses. The last columns are ratios of medians.\n", userExpr, userExpr, sockets, frames)
}

func printFiltersTable(w io.Writer, m match) {
	fmt.Fprintf(w, "\n%s:\n\n| addresses | filter | auto | instructions |", map[bool]string{false: "IPv4", true: "IPv6"}[m.ipv6])
	for _, k := range m.kinds() {
		fmt.Fprintf(w, " %s |", k.name)
	}
	fmt.Fprint(w, " in scope, of libpcap's | out, of libpcap's |\n| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
}

func (m match) print(w io.Writer, contestants []*contestant) {
	var libpcap *contestant
	for _, c := range contestants[1:] {
		if c.who == "libpcap" {
			libpcap = c
		}
		auto := ""
		if c.chosen {
			auto = "auto"
		}
		length := "–"
		if c.length > 0 {
			length = fmt.Sprint(c.length)
		}
		fmt.Fprintf(w, "| %d | %s | %s | %s |", m.addrs, c.who, auto, length)
		for _, kind := range m.kinds() {
			fmt.Fprintf(w, " %s |", c.cell(kind))
		}
		fmt.Fprintf(w, " %s | %s |\n", c.ratio(libpcap, "in scope"), c.ratio(libpcap, "out of scope"))
	}
}

// cell is what a contestant took for a kind of frame.
func (c *contestant) cell(kind frameKind) string {
	values := slices.Sorted(slices.Values(c.above[kind.name]))
	if len(values) == 0 {
		return c.why
	}
	quarter := len(values) / 4
	cell := fmt.Sprintf("%.1f [%.1f, %.1f]", median(values), values[quarter], values[len(values)-1-quarter])
	if len(c.classic) > 0 {
		_, executed := bpf.VM{}.Count(c.classic, bpf.Packet{Data: kind.frame, WireLen: uint32(len(kind.frame))})
		cell += fmt.Sprintf(" (%d)", executed)
	}
	return cell
}

// ratio is that of the medians: of single set-ups it is meaningless where they are near 0.
func (c *contestant) ratio(to *contestant, kind string) string {
	if to == nil || len(to.above[kind]) == 0 || len(c.above[kind]) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", median(c.above[kind])/median(to.above[kind]))
}
