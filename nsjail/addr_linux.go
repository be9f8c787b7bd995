package nsjail

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (j *Jail) addresses() ([]netip.Prefix, error) {
	h, err := j.handle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return j.list(h)
}

// handle is a rtnetlink(7) socket in the namespace.
func (j *Jail) handle() (h *netlink.Handle, err error) {
	err = j.Do(func() error {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", j, err)
	}
	return h, nil
}

// list asks the kernel, again as long as its answer was interrupted by a change.
func (j *Jail) list(h *netlink.Handle) ([]netip.Prefix, error) {
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	for errors.Is(err, netlink.ErrDumpInterrupted) {
		addrs, err = h.AddrList(nil, netlink.FAMILY_ALL)
	}
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", j, err)
	}
	return own(addrs), nil
}

// own picks the addresses that are the jail's alone.
func own(addrs []netlink.Addr) []netip.Prefix {
	var list []netip.Prefix
	for _, a := range addrs {
		// IFA_F_DADFAILED (linux/if_addr.h): another host has the address.
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.IsLoopback() && a.Flags&unix.IFA_F_DADFAILED == 0 {
			list = append(list, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list) // two interfaces may have the same address
}
