//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"jailtap/nsjail/confine"
)

// readdress gives a jail other addresses, or leaves it as it was. A command that is
// killed in the middle has left a record of all that may be on the interfaces.
func (r Registry) readdress(rec *record, addrs []Address) error {
	next := *rec
	next.Spec.Addresses = addrs
	if err := next.Spec.check(); err != nil {
		return err
	}
	all, err := r.lockAll()
	if err != nil {
		return err
	}
	defer all.Close()
	if err := r.reclaim(rec, &next); err != nil {
		return err
	}
	both := *rec
	both.Added = union(rec.Added, next.Added)
	if err := r.save(&both); err != nil {
		return err
	}
	err = rec.inNetwork(func() error { return rec.exchange(&next) })
	if err == nil {
		if err = next.setNAT(); err != nil {
			err = errors.Join(err, rec.inNetwork(func() error { return next.exchange(rec) }))
		}
	}
	if err != nil {
		return errors.Join(err, r.save(rec))
	}
	*rec = next
	return r.save(rec)
}

// reclaim claims what a jail is to have next. What it has added to interfaces before
// and still has it will remove as well.
func (r Registry) reclaim(rec, next *record) error {
	if rec.Spec.Network == VNET {
		return next.sameLink()
	}
	others, err := r.records()
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(o *record) bool { return o.Spec.Name == rec.Spec.Name })
	if err := next.claimAddresses(others); err != nil {
		return err
	}
	for _, a := range rec.Added {
		if has(next.Spec.Addresses, a.Prefix.Addr()) && !has(next.Added, a.Prefix.Addr()) {
			next.Added = append(next.Added, a)
		}
	}
	return nil
}

// sameLink refuses addresses that want another link than a vnet jail has.
func (rec *record) sameLink() error {
	if rec.insideLink() == "" && len(rec.Spec.Addresses) > 0 {
		return errors.New("it has no link that could have an address: remove and create it (jail -rc)")
	}
	for _, a := range rec.Spec.Addresses {
		if a.Interface != "" && a.Interface != rec.Bridge {
			return fmt.Errorf("address %v: the jail is linked to bridge %s and not to %s", a.Prefix.Addr(), rec.Bridge, a.Interface)
		}
	}
	return nil
}

// inNetwork runs f in the network whose interfaces have the jail's addresses.
func (rec *record) inNetwork(f func() error) error {
	if rec.Spec.Network != VNET {
		return f()
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", rec.First.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if !rec.First.alive() { // so it was its own
		return errEnded
	}
	return onLostThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the jail's network: %w", err)
		}
		return f()
	})
}

// exchange is what readdress does to the network. The new addresses are there before
// the jail may use them, and the old ones as long as it may. Of those that it had some
// may not be there: an exchange before was killed.
func (rec *record) exchange(next *record) error {
	had, gets := rec.onInterfaces(), next.onInterfaces()
	if err := addMissing(gets); err != nil {
		return errors.Join(err, removeAddresses(without(gets, had)))
	}
	err := next.hold()
	if err == nil {
		err = removeAddresses(without(had, gets))
	}
	if err == nil {
		err = next.routes()
	}
	if err != nil {
		return errors.Join(err, addMissing(without(had, gets)), rec.hold(), removeAddresses(without(gets, had)), rec.routes())
	}
	return nil
}

// onInterfaces are the addresses that are on interfaces for the jail's sake.
func (rec *record) onInterfaces() []Address {
	if rec.Spec.Network != VNET {
		return rec.Added
	}
	var list []Address
	for _, a := range rec.Spec.Addresses {
		list = append(list, Address{rec.insideLink(), a.Prefix})
	}
	return list
}

// hold holds a shared jail to its addresses.
func (rec *record) hold() error {
	if rec.Spec.Network != Shared {
		return nil
	}
	return confine.Change(rec.Cgroup, rec.Spec.plainAddresses())
}

// plainAddresses are a jail's, without their networks.
func (s *Spec) plainAddresses() []netip.Addr {
	var list []netip.Addr
	for _, a := range s.Addresses {
		list = append(list, a.Prefix.Addr())
	}
	return list
}

// union has what is in either list.
func union(a, b []Address) []Address { return append(slices.Clone(a), without(b, a)...) }

// without has what is in one list and not in another.
func without(list, others []Address) []Address {
	return slices.DeleteFunc(slices.Clone(list), func(a Address) bool { return slices.Contains(others, a) })
}
