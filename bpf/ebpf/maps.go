package ebpf

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"

	cilium "github.com/cilium/ebpf"

	"jailtap/bpf"
)

// Program is the name of the one program of a collection.
const Program = "jailtap"

// Names of maps.
const (
	Hosts4    = "hosts4"    // 4 bytes of address, in network order, → nothing
	Hosts6    = "hosts6"    // 16 bytes of address → nothing
	Prefixes4 = "prefixes4" // u32 length in bits, 4 bytes of address → nothing
	Prefixes6 = "prefixes6"
	Maybe4    = "maybe4" // filter of what is in hosts4
	Maybe6    = "maybe6"
	Few4      = "few4"     // Few of what is in hosts4, if there are no more
	Flags     = "flags"    // u32 of Flag*
	Counts    = "counters" // Counters, for each CPU
	vlanIDs   = "vlans"    // bit i of byte n: VLAN 8n+i; constant, only if the scope lists VLANs
)

// FlagPrefixes4 and FlagPrefixes6 say that there are entries in the map of
// prefixes; without them it is not looked into.
const (
	FlagPrefixes4 = 1 << iota
	FlagPrefixes6

	// FlagFew4 says that few4 has what is in hosts4, which is not looked into.
	FlagFew4

	// FlagRevoked ends a captive socket's scope: nothing is in it any more.
	FlagRevoked
)

// Counters is the value in the counters map. All are numbers of frames.
type Counters struct{ Seen, InScope, Matched uint64 }

// few is how many IPv4 addresses are compared one by one, which costs less than a
// look-up.
const few = 4

// Capacity is for how many addresses of each family a program's maps have room.
type Capacity struct{ IPv4, IPv6 int }

// minCapacity keeps small scopes from being loaded again as they grow.
const minCapacity = 4096

// CapacityFor is the next power of two that has room for so many addresses of
// each family.
func CapacityFor(addrs []netip.Prefix) Capacity {
	var c Capacity
	for _, p := range addrs {
		if p.Addr().Unmap().Is4() {
			c.IPv4++
		} else {
			c.IPv6++
		}
	}
	return Capacity{roundUp(c.IPv4), roundUp(c.IPv6)}
}

func roundUp(n int) int { return 1 << bits.Len(uint(max(n, minCapacity)-1)) }

// Maps are the maps that the addresses of a scope live in.
func Maps(c Capacity) map[string]*cilium.MapSpec {
	const noPrealloc = 1 // BPF_F_NO_PREALLOC
	table := func(kind cilium.MapType, key, entries int) *cilium.MapSpec {
		return &cilium.MapSpec{Type: kind, KeySize: uint32(key), ValueSize: 1, MaxEntries: uint32(entries), Flags: noPrealloc}
	}
	value := func(size int) *cilium.MapSpec {
		return &cilium.MapSpec{Type: cilium.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: 1}
	}
	maps := map[string]*cilium.MapSpec{
		Hosts4:    table(cilium.Hash, 4, c.IPv4),
		Hosts6:    table(cilium.Hash, 16, c.IPv6),
		Prefixes4: table(cilium.LPMTrie, 4+4, c.IPv4),
		Prefixes6: table(cilium.LPMTrie, 4+16, c.IPv6),
		Maybe4:    value(8 << maybeWords(c.IPv4)),
		Maybe6:    value(8 << maybeWords(c.IPv6)),
		Few4:      value(4 * few),
		Flags:     value(4),
	}
	for name, m := range maps {
		m.Name = name
	}
	return maps
}

// The filter in front of the hash tables is a Bloom filter of 64-bit words in
// the CPU's byte order: an address picks one word and in it two bits, and is
// absent unless both are set. With 16 bits for each address that there is room
// for, 1 or 2 in 100 absent addresses are not told at once.

// maybeWords is the base-2 logarithm of the number of words.
func maybeWords(capacity int) int { return bits.Len(uint(roundUp(capacity)*16/64) - 1) }

// maybeHash is hashed by multiplication (Knuth, volume 3, 6.4): the odd number
// next to 2^64 divided by the golden ratio.
const maybeHash = 0x9e3779b97f4a7c15

// Values are what belongs into the maps of one value, but for flags, by their
// names, and what belongs into flags when they are there, if addrs are the
// scope's addresses. IPv4 addresses must be as such, not as IPv6.
func Values(c Capacity, addrs []netip.Prefix) (values map[string][]byte, flags uint32) {
	maybe4 := make([]byte, 8<<maybeWords(c.IPv4))
	maybe6 := make([]byte, 8<<maybeWords(c.IPv6))
	var hosts4 [][4]byte
	for _, p := range addrs {
		switch v4 := p.Addr().Is4(); {
		case p.IsSingleIP() && v4:
			a := p.Addr().As4()
			hosts4 = append(hosts4, a)
			pass(maybe4, uint64(binary.NativeEndian.Uint32(a[:])))
		case p.IsSingleIP():
			a := p.Addr().As16()
			h := binary.NativeEndian.Uint64(a[:8])*maybeHash ^ binary.NativeEndian.Uint64(a[8:])
			pass(maybe6, h^h>>32)
		case v4:
			flags |= FlagPrefixes4
		default:
			flags |= FlagPrefixes6
		}
	}
	values = map[string][]byte{Maybe4: maybe4, Maybe6: maybe6}
	if n := len(hosts4); n > 0 && n <= few {
		values[Few4] = fewOf(hosts4)
		flags |= FlagFew4
	}
	return values, flags
}

// fewOf is the value in few4. What there is room for is filled up with the first.
func fewOf(hosts [][4]byte) (value []byte) {
	for i := range few {
		if i >= len(hosts) {
			i = 0
		}
		value = append(value, hosts[i][:]...)
	}
	return value
}

// pass makes the filter let an address pass. scopeCode.host asks for the same.
func pass(filter []byte, addr uint64) {
	words := bits.Len(uint(len(filter)/8) - 1)
	h := addr * maybeHash >> (64 - words - 12)
	word := filter[h>>12*8:]
	binary.NativeEndian.PutUint64(word, binary.NativeEndian.Uint64(word)|1<<(h&63)|1<<(h>>6&63))
}

// Spec is the program that runs user, which is about live frames, on the
// frames of view v that are in the scope s, and returns what user returns; on
// others it returns 0. Of s only the policy and the VLANs matter here.
//
// The program is a socket filter, and can be loaded as a tc program too. It
// judges the bytes that the socket delivers. Frames that end before both
// addresses do, source and destination, are out of scope even where
// bpf.Scope.Match needs only one of them to decide: nothing else differs.
func Spec(v bpf.View, s bpf.Scope, user bpf.Program, c Capacity) (*cilium.CollectionSpec, error) {
	g := scopeCode{v: v.LinkType, s: s, capacity: c}
	if !v.Live {
		return nil, fmt.Errorf("no eBPF scope for %v: only for live frames", v)
	}
	if !g.knows(v.LinkType) {
		return nil, fmt.Errorf("no eBPF scope for link type %v: known are EN10MB, RAW and LINUX_SLL2", v.LinkType)
	}
	g.start()
	g.scope()
	if err := g.userCounted(user); err != nil {
		return nil, err
	}
	return g.collection(g.maps())
}

func (g *scopeCode) maps() map[string]*cilium.MapSpec {
	maps := Maps(g.capacity)
	if len(g.s.VLANs.IDs) > 0 && !g.s.VLANs.Any {
		maps[vlanIDs] = vlanMap(g.s.VLANs.IDs)
	}
	return maps
}

func vlanMap(ids []uint16) *cilium.MapSpec {
	var set [4096 / 8]byte
	for _, id := range ids {
		set[id/8] |= 1 << (id % 8)
	}
	return &cilium.MapSpec{
		Name: vlanIDs, Type: cilium.Array, KeySize: 4, ValueSize: uint32(len(set)), MaxEntries: 1,
		Contents: []cilium.MapKV{{Key: uint32(0), Value: set[:]}},
	}
}

// Unscoped is the program that runs user on every frame.
func Unscoped(user bpf.Program) (*cilium.CollectionSpec, error) {
	var c code
	c.start()
	if err := c.userCounted(user); err != nil {
		return nil, err
	}
	return c.collection(map[string]*cilium.MapSpec{})
}

// license is that of the programs in the kernel, which are under the GPL as well as
// under that of this module: only to such the kernel gives pointers of its own.
const license = "GPL and additional rights"

func (c *code) collection(maps map[string]*cilium.MapSpec) (*cilium.CollectionSpec, error) {
	insns, err := c.finish()
	if err != nil {
		return nil, err
	}
	maps[Counts] = &cilium.MapSpec{
		Name: Counts, Type: cilium.PerCPUArray, KeySize: 4, ValueSize: uint32(binary.Size(Counters{})), MaxEntries: 1,
	}
	return &cilium.CollectionSpec{
		Maps: maps,
		Programs: map[string]*cilium.ProgramSpec{Program: {
			Name: Program, Type: cilium.SocketFilter, Instructions: insns, License: license,
		}},
	}, nil
}
