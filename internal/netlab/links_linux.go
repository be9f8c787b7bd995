package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Veth makes a veth pair: name in n, peerName in peer, both up and running.
func (n *Namespace) Veth(peer *Namespace, name, peerName string) error {
	there, err := netns.GetFromPath(peer.Path)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", peer.Name, err)
	}
	defer there.Close()
	err = n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(there)}
		return netlink.LinkAdd(pair)
	})
	if err != nil {
		return fmt.Errorf("make veth pair %s and %s: %w", name, peerName, err)
	}
	if err := errors.Join(peer.setUp(peerName), n.setUp(name)); err != nil {
		return err
	}
	return errors.Join(peer.waitRunning(peerName), n.waitRunning(name))
}

// Bridge makes a bridge of interfaces that n has.
func (n *Namespace) Bridge(name string, ports ...string) error {
	err := n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		// Snooping would make the bridge send IGMP and MLD queries.
		bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: new(bool)}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		for _, port := range ports {
			link, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link, bridge); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	return n.setUp(name)
}

func (n *Namespace) setUp(ifname string) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return fmt.Errorf("interface %s: %w", ifname, err)
		}
		return netlink.LinkSetUp(link)
	})
}

// waitRunning waits until an interface runs, which it does a moment after its peer is up
// (linkwatch_event in net/core/link_watch.c). Before that it drops what is sent, silently.
func (n *Namespace) waitRunning(ifname string) error {
	const patience = 10 * time.Second
	return n.Do(func() error {
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			link, err := netlink.LinkByName(ifname)
			if err != nil {
				return fmt.Errorf("interface %s: %w", ifname, err)
			}
			if link.Attrs().OperState == netlink.OperUp {
				return nil
			}
			if time.Now().After(end) {
				return fmt.Errorf("interface %s does not run after %v: it is %v", ifname, patience, link.Attrs().OperState)
			}
		}
	})
}

// mldReport is how long the kernel takes, at most, to send the multicast
// listener report that a new IPv6 address gives rise to (RFC 3810; two ticks).
const mldReport = 40 * time.Millisecond

// AddAddr gives an interface an address with its prefix length, as
// "10.0.0.1/24". The first IPv6 address turns IPv6 on there, quietly: no
// duplicate address detection, no router solicitations, no link-local address
// by itself. The multicast listener report that goes out has gone when AddAddr
// returns.
func (n *Namespace) AddAddr(ifname, cidr string) error {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return err
	}
	err = n.Do(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{
			IP:   prefix.Addr().AsSlice(),
			Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		}}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
			if err := sysctl("net/ipv6/conf/"+ifname+"/disable_ipv6", "0"); err != nil {
				return err
			}
			defer time.Sleep(mldReport)
		}
		return netlink.AddrAdd(link, addr)
	})
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", ifname, cidr, err)
	}
	return nil
}

// Inject writes whole Ethernet frames out of an interface, past the network
// stack (packet(7)).
func (n *Namespace) Inject(ifname string, frames ...[]byte) error {
	err := n.Do(func() error {
		link, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		// Protocol 0: the socket sends only.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Ifindex: link.Index}
		for i, frame := range frames {
			if err := unix.Sendto(fd, frame, 0, to); err != nil {
				return fmt.Errorf("frame %d of %d bytes: %w", i, len(frame), err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("send on %s: %w", ifname, err)
	}
	return nil
}
