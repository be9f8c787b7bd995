package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	cilium "github.com/cilium/ebpf"

	"jailtap/bpf/ebpf"
	"jailtap/internal/progmaps"
)

// adopt finds captive sockets in the list, and what is behind each by the
// program on it.
func (w *warden) adopt(label string) (found []*Captive, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.guards == nil {
		return nil, errClosed
	}
	var cookie uint64
	var entry guardCaptive
	entries := w.guards.Captives.Iterate()
	for entries.Next(&cookie, &entry) {
		whose := entry.label()
		if whose == "" || !strings.HasPrefix(whose, label) {
			continue
		}
		c := &Captive{captive{socket: -1, cookie: cookie, label: whose, program: cilium.ProgramID(entry.Program), rules: entry.Rules}}
		switch err2 := c.takeUp(w.guards.pinOfSlot(cookie)); {
		case err2 == nil:
			found = append(found, c)
		case c.alive():
			err = errors.Join(err, fmt.Errorf("adopt captive socket %d of %q: %w", cookie, whose, err2))
			fallthrough
		default:
			c.close()
		}
	}
	return found, errors.Join(err, entries.Err())
}

// label is the text up to the first 0.
func (c *guardCaptive) label() string {
	var text []byte
	for _, b := range c.Label {
		if b == 0 {
			break
		}
		text = append(text, byte(b))
	}
	return string(text)
}

// takeUp opens the maps of the socket's program.
func (c *captive) takeUp(slot string) (err error) {
	maps, err := progmaps.Of(c.program)
	if err != nil {
		return err
	}
	defer maps.Close()
	if c.addrs, err = foundSet(maps); err != nil {
		return err
	}
	c.counters = maps.Take(ebpf.Counts)
	if c.slot, err = cilium.LoadPinnedMap(slot, nil); err != nil {
		return fmt.Errorf("what keeps its filter: %w", err)
	}
	c.revoked = c.addrs.flags&ebpf.FlagRevoked != 0
	return nil
}

// foundSet takes a program's maps of addresses, with what is in them. A program
// lacks those that its policy does not ask.
func foundSet(maps progmaps.Maps) (*addrSet, error) {
	room := func(table string) int {
		if m := maps[table]; m != nil {
			return int(m.MaxEntries())
		}
		return 1
	}
	s, err := newAddrSet(ebpf.Capacity{IPv4: room(ebpf.Hosts4), IPv6: room(ebpf.Hosts6)})
	if err != nil {
		return nil, err
	}
	for name := range s.maps {
		if m := maps.Take(name); m != nil {
			s.maps[name].Close()
			s.maps[name] = m
		}
	}
	s.torn = true
	if s.have, err = s.listed(); err == nil {
		err = s.maps[ebpf.Flags].Lookup(uint32(0), &s.flags)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// listed is what is in the tables.
func (s *addrSet) listed() (set []netip.Prefix, err error) {
	for _, table := range tables {
		var key []byte
		var value byte
		entries := s.maps[table].Iterate()
		for entries.Next(&key, &value) {
			set = append(set, prefixOf(table, key))
		}
		if err := entries.Err(); err != nil {
			return nil, fmt.Errorf("list map %s: %w", table, err)
		}
	}
	return canonical(set), nil
}

// prefixOf is the prefix that has such a key: see keysOf.
func prefixOf(table string, key []byte) netip.Prefix {
	bits := -1
	if table == ebpf.Prefixes4 || table == ebpf.Prefixes6 {
		bits, key = int(binary.NativeEndian.Uint32(key)), key[4:]
	}
	a, _ := netip.AddrFromSlice(key)
	if bits < 0 {
		bits = a.BitLen()
	}
	return netip.PrefixFrom(a, bits)
}
