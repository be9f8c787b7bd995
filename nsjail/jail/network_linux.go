//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// claimAddresses makes sure that a jail's addresses are nobody else's, and records
// what is to be added to the host. others are all other jails.
func (rec *record) claimAddresses(others []*record) error {
	switch rec.Spec.Network {
	case Shared:
		return rec.claimShared(others)
	case VNET:
		rec.claimLink()
	}
	return nil
}

// claimShared records the addresses that the named interfaces do not have yet.
// Those that they have were there before the jail, and stay when it goes.
func (rec *record) claimShared(others []*record) error {
	for _, o := range others {
		// A jail -m that was killed has left what the jail may be held to in Added.
		for _, theirs := range union(o.Spec.Addresses, o.Added) {
			if o.Spec.Network == Shared && has(rec.Spec.Addresses, theirs.Prefix.Addr()) {
				return fmt.Errorf("address %v is that of jail %s", theirs.Prefix.Addr(), o.Spec.Name)
			}
		}
	}
	rec.Added = nil
	for _, a := range rec.Spec.Addresses {
		there, err := holderOf(a.Prefix.Addr())
		if err != nil {
			return err
		}
		switch {
		case there == "" && a.Interface == "":
			return fmt.Errorf("address %v is on no interface: add it to one, or say on which: INTERFACE|%v", a.Prefix.Addr(), a.Prefix)
		case there == "":
			if _, err := linkByName(a.Interface); err != nil {
				return err
			}
			rec.Added = append(rec.Added, a)
		case a.Interface != "" && there != a.Interface:
			return fmt.Errorf("address %v is in use on interface %s: remove it there, or name that interface", a.Prefix.Addr(), there)
		}
	}
	return nil
}

// holderOf is the interface of the host that has an address, or "".
func holderOf(addr netip.Addr) (string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); !ok || ip.Unmap() != addr {
			continue
		}
		for _, l := range links {
			if l.Attrs().Index == a.LinkIndex {
				return l.Attrs().Name, nil
			}
		}
	}
	return "", nil
}

// linkByName finds an interface. The error names those that there are.
func linkByName(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if !isNotFound(err) {
		return link, err
	}
	links, _ := netlink.LinkList()
	var known []string
	for _, l := range links[:min(len(links), 20)] {
		known = append(known, l.Attrs().Name)
	}
	return nil, fmt.Errorf("there is no interface %q: there are %s", name, strings.Join(known, ", "))
}

func isNotFound(err error) bool {
	_, ok := errors.AsType[netlink.LinkNotFoundError](err)
	return ok || errors.Is(err, unix.ENODEV)
}

// addNetwork gives a jail, whose first process is there, what is recorded.
func (r Registry) addNetwork(rec *record) error {
	switch rec.Spec.Network {
	case Shared: // the rules are there already
		return addAddresses(rec.Added)
	case VNET:
		if err := r.addLink(rec); err != nil {
			return err
		}
		return rec.setNAT()
	}
	return nil
}

func (r Registry) removeNetwork(rec *record) error {
	switch rec.Spec.Network {
	case Shared: // the rules went with the cgroup
		return removeAddresses(rec.Added)
	case VNET:
		return errors.Join(rec.removeNAT(), r.removeLink(rec))
	}
	return nil
}

// addAddresses adds addresses to interfaces.
func addAddresses(list []Address) error {
	for _, a := range list {
		link, err := linkByName(a.Interface)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, a.forNetlink()); err != nil {
			return fmt.Errorf("add %v to %s: %w", a.Prefix, a.Interface, err)
		}
	}
	return nil
}

// addMissing adds those that are not there.
func addMissing(list []Address) error {
	var errs []error
	for _, a := range list {
		if err := addAddresses([]Address{a}); !errors.Is(err, unix.EEXIST) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// forNetlink is an address without duplicate address detection (RFC 4862), which
// keeps it from being bound for a second or two: nobody else has it here.
func (a Address) forNetlink() *netlink.Addr {
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP: a.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), a.Prefix.Addr().BitLen())}}
	if a.Prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// removeAddresses removes addresses; those that are not there are no error.
func removeAddresses(list []Address) error {
	var errs []error
	for _, a := range list {
		if err := a.remove(); err != nil {
			errs = append(errs, fmt.Errorf("remove %v from %s: %w", a.Prefix, a.Interface, err))
		}
	}
	return errors.Join(errs...)
}

func (a Address) remove() error {
	link, err := netlink.LinkByName(a.Interface)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	// With the first address of a network others of it go, which may be other
	// jails', unless they are to be promoted (ip-sysctl.rst of the kernel).
	restore, err := setSysctl("/proc/sys/net/ipv4/conf/"+a.Interface+"/promote_secondaries", "1")
	if err != nil {
		return err
	}
	defer restore()
	err = netlink.AddrDel(link, a.forNetlink())
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
