package confine

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"jailtap/internal/progmaps"
)

// Change holds the sockets of a cgroup, which Attach was called for, to other addresses.
// Those that are bound to what is no longer there stay so, but neither get nor send a
// packet any more. If it fails it may be done again, with the old addresses too.
func Change(cgroup string, addrs []netip.Addr) error {
	maps, err := mapsOf(cgroup)
	if err != nil {
		return err
	}
	defer maps.Close()
	if err := put(maps.Addresses, addrs); err != nil {
		return err
	}
	if err := setFirst(maps.Jails, addrs); err != nil {
		return err
	}
	return prune(maps.Addresses, addrs)
}

// prune removes all other addresses.
func prune(addresses *ebpf.Map, addrs []netip.Addr) error {
	keep := map[rulesAddress]bool{}
	for _, a := range addrs {
		keep[inKernel(a)] = true
	}
	var old []rulesAddress
	var a rulesAddress
	var there uint8
	all := addresses.Iterate()
	for all.Next(&a, &there) {
		if !keep[a] {
			old = append(old, a)
		}
	}
	if err := all.Err(); err != nil {
		return err
	}
	for _, a := range old {
		if err := addresses.Delete(a); err != nil {
			return err
		}
	}
	return nil
}

// mapsOf finds the maps of a cgroup's rules by the program that is attached there.
func mapsOf(cgroup string) (*rulesMaps, error) {
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	found, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: ebpf.AttachCGroupInet4Bind})
	if err != nil {
		return nil, explain("find the rules of "+cgroup, err)
	}
	for _, p := range found.Programs {
		maps, err := progmaps.Of(p.ID)
		if err != nil {
			return nil, explain("find the rules of "+cgroup, err)
		}
		if maps[rulesMapAddresses] != nil && maps[rulesMapJails] != nil {
			defer maps.Close()
			return &rulesMaps{Addresses: maps.Take(rulesMapAddresses), Jails: maps.Take(rulesMapJails)}, nil
		}
		maps.Close()
	}
	return nil, fmt.Errorf("%s has no rules for a shared jail", cgroup)
}
