package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
	"jailtap/internal/testutil"
)

func prefixes(t testing.TB, texts ...string) []netip.Prefix {
	t.Helper()
	var set []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		set = append(set, p)
	}
	return set
}

func newTestSet(t testing.TB, c ebpf.Capacity) *addrSet {
	t.Helper()
	testutil.NeedRoot(t)
	s, err := newAddrSet(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// in is what the set's maps hold, sorted.
func (s *addrSet) in(t *testing.T) (found []netip.Prefix) {
	t.Helper()
	for _, table := range tables {
		m := s.maps[table]
		key, value := make([]byte, m.KeySize()), byte(0)
		for entries := m.Iterate(); entries.Next(&key, &value); {
			length := len(key) * 8
			addr := key
			if table == ebpf.Prefixes4 || table == ebpf.Prefixes6 {
				length, addr = int(binary.NativeEndian.Uint32(key)), key[4:]
			}
			a, _ := netip.AddrFromSlice(addr)
			found = append(found, netip.PrefixFrom(a, length))
		}
	}
	slices.SortFunc(found, netip.Prefix.Compare)
	return found
}

func TestTheMapsHoldTheScopesAddressesAndNothingElse(t *testing.T) {
	s := newTestSet(t, ebpf.CapacityFor(nil))
	for i, step := range []struct{ set, want []string }{
		{[]string{"10.0.0.1/32"}, []string{"10.0.0.1/32"}},
		{[]string{"10.0.0.1/32", "10.1.2.3/16", "2001:db8::1/128", "2001:db8:1::1/64", "10.0.0.1/32"},
			[]string{"10.0.0.1/32", "10.1.0.0/16", "2001:db8::1/128", "2001:db8:1::/64"}},
		{[]string{"::ffff:10.0.0.2/128", "::ffff:10.2.0.0/112", "::/0"},
			[]string{"10.0.0.2/32", "10.2.0.0/16", "::/0"}},
		{nil, nil},
	} {
		if err := s.Set(prefixes(t, step.set...)); err != nil {
			t.Fatal(err)
		}
		if got, want := s.in(t), canonical(prefixes(t, step.want...)); !slices.Equal(got, want) {
			t.Errorf("step %d: the maps hold %v, want %v", i, got, want)
		}
	}
}

func TestASetThatBrokeOffIsMadeWholeByTheNext(t *testing.T) {
	s := newTestSet(t, ebpf.CapacityFor(nil))
	all := prefixes(t, "10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32")
	if err := s.Set(all); err != nil {
		t.Fatal(err)
	}
	s.torn = true // as if adding the second and third had failed
	if err := s.remove(all[1:]); err != nil {
		t.Fatal(err)
	}
	want := append(prefixes(t, "10.0.0.9/32"), all[1:2]...)
	if err := s.Set(want); err != nil {
		t.Fatal(err)
	}
	if got, want := s.in(t), canonical(want); !slices.Equal(got, want) {
		t.Errorf("the maps hold %v, want %v", got, want)
	}
}

func TestTooManyAddressesAreAnErrorAndChangeNothing(t *testing.T) {
	s := newTestSet(t, ebpf.CapacityFor(nil))
	before := prefixes(t, "10.0.0.1/32")
	if err := s.Set(before); err != nil {
		t.Fatal(err)
	}
	many := hosts(4097, false, true)
	if err := s.Set(many); !errors.Is(err, errCapacity) {
		t.Errorf("error %v, want %v", err, errCapacity)
	}
	if got := s.in(t); !slices.Equal(got, before) {
		t.Errorf("the maps hold %v, want %v", got, before)
	}
	if err := newTestSet(t, ebpf.CapacityFor(many)).Set(many); err != nil {
		t.Error(err)
	}
}

// hosts makes n single addresses of one family, adjacent or scattered. The
// first is always the same.
func hosts(n int, v6, row bool) []netip.Prefix {
	r := rand.New(rand.NewPCG(1, 2))
	set := make([]netip.Prefix, n)
	for i := range set {
		v := uint64(i)
		if !row && i > 0 {
			v = r.Uint64()
		}
		set[i] = netip.PrefixFrom(host(v, v6), 32)
		if v6 {
			set[i] = netip.PrefixFrom(host(v, v6), 128)
		}
	}
	return set
}

// host is one of 2^25 addresses: IPv4 from 10.0.0.0 up, IPv6 from
// 2001:db8::10.0.0.0 up.
func host(v uint64, v6 bool) netip.Addr {
	low := 0x0a000000 + uint32(v%(1<<25))
	if !v6 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, low)))
	}
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint32(a[12:], low)
	return netip.AddrFrom16(a)
}

// A stream says how frames differ from one run to the next: the last 32 bits of
// their source and destination are random & and | or.
type stream struct {
	name     string
	src, dst bitsOf
}

type bitsOf struct{ and, or uint32 }

// The scopes below have 10.0.0.0, or 2001:db8::10.0.0.0, and what follows it.
var streams = []stream{
	{"from own", bitsOf{0, 0x0a000000}, bitsOf{0, 0xc0000001}},
	{"to own", bitsOf{0, 0xc0000001}, bitsOf{0, 0x0a000000}},
	{"foreign", bitsOf{0, 0xc0000001}, bitsOf{0, 0xc0000002}},
	{"foreign, 4096 pairs", bitsOf{0xfff, 0xc0000000}, bitsOf{0, 0xc0000002}},
	{"foreign, 2^60 pairs", bitsOf{1<<30 - 1, 0xc0000000}, bitsOf{1<<30 - 1, 0xc0000000}},
	{"from 4096 own", bitsOf{0xfff, 0x0a000000}, bitsOf{0, 0xc0000001}},
	{"from 2^20 own", bitsOf{1<<20 - 1, 0x0a000000}, bitsOf{0, 0xc0000001}},
}

// BenchmarkScope measures what a frame costs, in ns above a program that
// accepts at once, with 1, 4,096 and 2^20 addresses in the scope. A round runs
// all sizes, so that the machine's moods hit them alike; metrics are medians of
// rounds. The streams with many addresses say what the caches hide from the
// others; with fewer addresses in the scope, most of their frames are foreign.
//
//	go test ./loader -run '^$' -bench Scope -benchtime 40x
func BenchmarkScope(b *testing.B) {
	sizes := []int{1, 1 << 12, 1 << 20}
	for _, v6 := range []bool{false, true} {
		for _, row := range []bool{true, false} {
			var sets []*addrSet
			for _, n := range sizes {
				sets = append(sets, filledSet(b, hosts(n, v6, row)))
			}
			name := map[bool]string{false: "IPv4", true: "IPv6"}[v6] + map[bool]string{false: " scattered/", true: " in a row/"}[row]
			for _, st := range streams {
				if st.src.and != 0 && st.src.or == 0x0a000000 && !row {
					continue // not in the scope
				}
				b.Run(name+st.name, func(b *testing.B) { compareSizes(b, sizes, sets, st, v6) })
			}
		}
	}
}

func filledSet(b *testing.B, addrs []netip.Prefix) *addrSet {
	b.Helper()
	s := newTestSet(b, ebpf.CapacityFor(addrs))
	start := time.Now()
	if err := s.Set(addrs); err != nil {
		b.Fatal(err)
	}
	if len(addrs) >= 1_000_000 {
		b.Logf("%d addresses set in %v", len(addrs), time.Since(start))
	}
	return s
}

// streamed puts in front of a program what makes the frames different.
func (st stream) streamed(prog asm.Instructions, v6 bool) asm.Instructions {
	src, dst := int32(26), int32(30)
	if v6 {
		src, dst = 22+12, 38+12
	}
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	put := func(off int32, v bitsOf) {
		insns = append(insns,
			asm.FnGetPrandomU32.Call(),
			asm.And.Imm32(asm.R0, int32(v.and)),
			asm.Or.Imm32(asm.R0, int32(v.or)),
			asm.HostTo(asm.BE, asm.R0, asm.Word),
			asm.StoreMem(asm.RFP, -4, asm.R0, asm.Word),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, off),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -4),
			asm.Mov.Imm(asm.R4, 4),
			asm.Mov.Imm(asm.R5, 0),
			asm.FnSkbStoreBytes.Call())
	}
	put(src, st.src)
	put(dst, st.dst)
	insns = append(insns, asm.Mov.Reg(asm.R1, asm.R6))
	return append(insns, prog...)
}

// streamProgram is the scope's program for test runs on the stream; of nil, one
// that accepts at once.
func streamProgram(b *testing.B, s *addrSet, st stream, v6 bool) *cilium.Program {
	b.Helper()
	capacity := ebpf.CapacityFor(nil)
	var maps map[string]*cilium.Map
	if s != nil {
		capacity, maps = s.capacity, s.Maps()
	}
	spec, err := ebpf.Spec(bpf.View{LinkType: bpf.Ethernet, Live: true}, bpf.Scope{}, nil, capacity)
	if err != nil {
		b.Fatal(err)
	}
	prog := spec.Programs[ebpf.Program]
	prog.Type = cilium.SchedCLS // frames start at the link level, and can be changed
	if s == nil {
		prog.Instructions = asm.Instructions{asm.Mov.Imm32(asm.R0, 1), asm.Return()}
	}
	prog.Instructions = st.streamed(prog.Instructions, v6)
	c, err := cilium.NewCollectionWithOptions(spec, cilium.CollectionOptions{MapReplacements: maps})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c.Programs[ebpf.Program]
}

func compareSizes(b *testing.B, sizes []int, sets []*addrSet, st stream, v6 bool) {
	const repeat = 50_000
	frame := testutil.UDP4(netip.AddrPortFrom(host(0, v6), 53), netip.AddrPortFrom(host(1, v6), 53), nil)
	programs := []*cilium.Program{streamProgram(b, nil, st, v6)}
	for _, s := range sets {
		programs = append(programs, streamProgram(b, s, st, v6))
	}
	times := make([][]float64, len(programs))
	for b.Loop() {
		for i, p := range programs {
			_, took, err := p.Benchmark(frame, repeat, nil)
			if err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], float64(took.Nanoseconds()))
		}
	}
	median := func(v []float64) float64 {
		slices.Sort(v)
		return v[len(v)/2]
	}
	b.ReportMetric(0, "ns/op")
	none := median(times[0])
	b.ReportMetric(none, "ns/none")
	for i, n := range sizes {
		b.ReportMetric(median(times[i+1])-none, fmt.Sprintf("ns/%d", n))
	}
	b.ReportMetric((median(times[len(sizes)])-none)/(median(times[1])-none), "ratio")
}

func TestFewAddressesAreComparedAndManyLookedUp(t *testing.T) {
	s := newTestSet(t, ebpf.CapacityFor(nil))
	four := prefixes(t, "10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "10.0.0.4/32")
	for i, set := range [][]netip.Prefix{four[:1], four[1:3], four, append(four[:4:4], prefixes(t, "10.0.0.5/32")...), four[3:], nil} {
		if err := s.Set(set); err != nil {
			t.Fatal(err)
		}
		var flags uint32
		var few []byte
		if err := errors.Join(s.maps[ebpf.Flags].Lookup(uint32(0), &flags), s.maps[ebpf.Few4].Lookup(uint32(0), &few)); err != nil {
			t.Fatal(err)
		}
		if is, want := flags&ebpf.FlagFew4 != 0, len(set) > 0 && len(set) <= 4; is != want {
			t.Errorf("step %d, %d addresses: few %v, want %v", i, len(set), is, want)
		}
		if flags&ebpf.FlagFew4 == 0 {
			continue
		}
		var held []netip.Prefix
		for a := range slices.Chunk(few, 4) {
			held = append(held, netip.PrefixFrom(netip.AddrFrom4([4]byte(a)), 32))
		}
		if !slices.Equal(canonical(held), set) {
			t.Errorf("step %d: the few are %v, want %v", i, held, set)
		}
	}
}
