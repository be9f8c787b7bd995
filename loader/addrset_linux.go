package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf/ebpf"
)

// errCapacity is wrapped by errors about scopes that have more addresses than
// their maps have room for: larger maps, and a program for them, are needed.
var errCapacity = errors.New("no room for so many addresses")

// An addrSet is the addresses of a scope in the maps that its program reads.
// It is not for concurrent use.
type addrSet struct {
	maps     map[string]*cilium.Map
	capacity ebpf.Capacity
	have     []netip.Prefix // at least what is in the maps, canonical
	torn     bool           // perhaps not all of have is in the maps
	flags    uint32         // those in the map
}

// newAddrSet makes maps with room for so many addresses, and nothing in them.
func newAddrSet(capacity ebpf.Capacity) (*addrSet, error) {
	s := &addrSet{maps: map[string]*cilium.Map{}, capacity: capacity}
	for name, spec := range ebpf.Maps(capacity) {
		m, err := cilium.NewMap(spec)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make map %s for %d IPv4 and %d IPv6 addresses: %w",
				name, capacity.IPv4, capacity.IPv6, err), s.Close())
		}
		s.maps[name] = m
	}
	return s, nil
}

// Maps are the maps by name, as cilium.CollectionOptions.MapReplacements wants
// them. They stay the set's.
func (s *addrSet) Maps() map[string]*cilium.Map { return s.maps }

// Close closes the maps. Programs that use them keep them, as they are.
func (s *addrSet) Close() error {
	var errs []error
	for _, m := range s.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Set makes addrs the addresses in the maps. What goes, goes before what is new comes,
// but for what old and new have in common: at no moment is an address in scope that is
// neither in the old set nor in the new, and what is in both always is. After an error,
// other than errCapacity, there may be less in the maps than that, and nothing else.
func (s *addrSet) Set(addrs []netip.Prefix) error {
	want := canonical(addrs)
	if need := ebpf.CapacityFor(want); need.IPv4 > s.capacity.IPv4 || need.IPv6 > s.capacity.IPv6 {
		return fmt.Errorf("%d addresses, maps for %d IPv4 and %d IPv6: %w",
			len(want), s.capacity.IPv4, s.capacity.IPv6, errCapacity)
	}
	gone, come := diff(s.have, want)
	if s.torn {
		come = want
	} else if len(gone)+len(come) == 0 {
		return nil
	}
	s.torn = true
	// One network contains another, or has nothing in common with it: what is common of
	// what goes and what comes is those of both that are in one of the others.
	early, new := inside(come, gone)
	late, gone := inside(gone, come)
	if err := s.bring(early); err != nil {
		return err
	}
	if err := s.flag(s.flags &^ ebpf.FlagFew4); err != nil { // from here on the tables say what is in scope
		return err
	}
	if err := s.remove(gone); err != nil {
		return err
	}
	s.have = canonical(slices.Concat(want, late))
	if err := s.add(new); err != nil {
		return err
	}
	if err := s.announce(want, len(late) > 0); err != nil {
		return err
	}
	if err := s.remove(late); err != nil {
		return err
	}
	s.have, s.torn = want, false
	return nil
}

// bring adds addresses that are in scope already, as part of a network.
func (s *addrSet) bring(set []netip.Prefix) error {
	if len(set) == 0 {
		return nil
	}
	s.have = canonical(slices.Concat(s.have, set))
	if err := s.add(set); err != nil {
		return err
	}
	if err := s.announce(s.have, false); err != nil {
		return err
	}
	awaitPrograms()
	return nil
}

// awaitPrograms waits until all programs have ended that run now, and may have read what
// has been changed since. (MEMBARRIER_CMD_GLOBAL of membarrier(2) is a grace period of RCU.
// Where there is none, a frame in a million may be lost.)
func awaitPrograms() {
	const global = 1 // linux/membarrier.h
	unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
}

// inside divides prefixes into those inside one of networks, and the others.
func inside(set, networks []netip.Prefix) (in, out []netip.Prefix) {
	outer := map[netip.Prefix]bool{}
	for _, n := range networks {
		if !n.IsSingleIP() {
			outer[n] = true
		}
	}
	if len(outer) == 0 {
		return nil, set
	}
	for _, p := range set {
		if containedIn(outer, p) {
			in = append(in, p)
		} else {
			out = append(out, p)
		}
	}
	return in, out
}

func containedIn(outer map[netip.Prefix]bool, p netip.Prefix) bool {
	for bits := range p.Bits() {
		if n, err := p.Addr().Prefix(bits); err == nil && outer[n] {
			return true
		}
	}
	return false
}

// canonical sorts prefixes, without bits behind their length, without
// duplicates, and with IPv4 as IPv4.
func canonical(addrs []netip.Prefix) []netip.Prefix {
	set := make([]netip.Prefix, 0, len(addrs))
	for _, p := range addrs {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		set = append(set, p.Masked())
	}
	slices.SortFunc(set, netip.Prefix.Compare)
	return slices.Compact(set)
}

// diff is what is in only one of two sorted sets.
func diff(old, new []netip.Prefix) (gone, come []netip.Prefix) {
	for len(old) > 0 && len(new) > 0 {
		switch order := old[0].Compare(new[0]); {
		case order < 0:
			gone, old = append(gone, old[0]), old[1:]
		case order > 0:
			come, new = append(come, new[0]), new[1:]
		default:
			old, new = old[1:], new[1:]
		}
	}
	return append(gone, old...), append(come, new...)
}

// tables are the maps that prefixes are entries of.
var tables = []string{ebpf.Hosts4, ebpf.Hosts6, ebpf.Prefixes4, ebpf.Prefixes6}

func tableOf(p netip.Prefix) string {
	switch {
	case p.Addr().Is4() && p.IsSingleIP():
		return ebpf.Hosts4
	case p.IsSingleIP():
		return ebpf.Hosts6
	case p.Addr().Is4():
		return ebpf.Prefixes4
	}
	return ebpf.Prefixes6
}

// keysOf are the keys of those prefixes that belong into the table, one after
// the other.
func keysOf(table string, set []netip.Prefix) (keys []byte) {
	for _, p := range set {
		if tableOf(p) != table {
			continue
		}
		if !p.IsSingleIP() {
			keys = binary.NativeEndian.AppendUint32(keys, uint32(p.Bits()))
		}
		keys = append(keys, p.Addr().AsSlice()...)
	}
	return keys
}

// batch is keys, of so many bytes each, as a slice with one element a key.
func batch(keys []byte, size uint32) any {
	switch n, p := len(keys)/int(size), unsafe.Pointer(unsafe.SliceData(keys)); size {
	case 4:
		return unsafe.Slice((*[4]byte)(p), n)
	case 8:
		return unsafe.Slice((*[8]byte)(p), n)
	case 16:
		return unsafe.Slice((*[16]byte)(p), n)
	default:
		return unsafe.Slice((*[20]byte)(p), n)
	}
}

func (s *addrSet) add(set []netip.Prefix) error {
	for _, table := range tables {
		m := s.maps[table]
		keys, size := keysOf(table, set), m.KeySize()
		if len(keys) == 0 {
			continue
		}
		_, err := m.BatchUpdate(batch(keys, size), make([]byte, len(keys)/int(size)), nil)
		if errors.Is(err, cilium.ErrNotSupported) { // before Linux 5.6; for prefixes, later
			err = each(keys, size, func(key []byte) error { return m.Put(key, byte(0)) })
		}
		if err != nil {
			return fmt.Errorf("add to map %s: %w", table, err)
		}
	}
	return nil
}

func (s *addrSet) remove(set []netip.Prefix) error {
	for _, table := range tables {
		m := s.maps[table]
		keys, size := keysOf(table, set), m.KeySize()
		if len(keys) == 0 {
			continue
		}
		_, err := m.BatchDelete(batch(keys, size), nil)
		if errors.Is(err, cilium.ErrNotSupported) || errors.Is(err, cilium.ErrKeyNotExist) {
			err = each(keys, size, func(key []byte) error {
				if err := m.Delete(key); !errors.Is(err, cilium.ErrKeyNotExist) {
					return err
				}
				return nil
			})
		}
		if err != nil {
			return fmt.Errorf("remove from map %s: %w", table, err)
		}
	}
	return nil
}

func each(keys []byte, size uint32, do func(key []byte) error) error {
	for key := range slices.Chunk(keys, int(size)) {
		if err := do(key); err != nil {
			return err
		}
	}
	return nil
}

// revoke puts nothing in scope any more, multicast and broadcast included, for
// programs that look at FlagRevoked. The next Set takes it back.
func (s *addrSet) revoke() error {
	s.torn = true
	if err := s.flag(ebpf.FlagRevoked); err != nil {
		return fmt.Errorf("revoke the scope: %w", err)
	}
	return nil
}

// announce tells the program which addresses and tables to look up at all. Those that it
// has looked up so far it does until the values are all there; wait says that values go
// without which it could not do before.
func (s *addrSet) announce(set []netip.Prefix, wait bool) error {
	values, flags := ebpf.Values(s.capacity, set)
	if err := s.flag((s.flags | flags) &^ ebpf.FlagFew4); err != nil {
		return err
	}
	if wait {
		awaitPrograms()
	}
	for name, value := range values {
		if err := s.maps[name].Put(uint32(0), value); err != nil {
			return fmt.Errorf("set map %s: %w", name, err)
		}
	}
	return s.flag(flags)
}

// flag sets the flags.
func (s *addrSet) flag(flags uint32) error {
	if flags == s.flags {
		return nil
	}
	if err := s.maps[ebpf.Flags].Put(uint32(0), flags); err != nil {
		return fmt.Errorf("set map %s: %w", ebpf.Flags, err)
	}
	s.flags = flags
	return nil
}
