//go:build amd64 || arm64

package jail

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// defaultBridge connects vnet jails with addresses that name no bridge.
const defaultBridge = "jailtap0"

// insideName is what a jail calls its end of the link.
const insideName = "eth0"

// madeByUs is the alias (ip-link(8)) of bridges that were made for jails, and go
// with the last one.
const madeByUs = "made by jailtap"

// claimLink records the link of a vnet jail, if it is to have one.
func (rec *record) claimLink() {
	rec.Bridge = rec.Spec.Link.Bridge
	for _, a := range rec.Spec.Addresses {
		if rec.Bridge == "" {
			rec.Bridge = a.Interface
		}
	}
	if rec.Bridge == "" && len(rec.Spec.Addresses) > 0 && len(rec.Spec.Link.Interfaces) == 0 {
		rec.Bridge = defaultBridge
	}
	if rec.Bridge != "" {
		rec.Veth = fmt.Sprintf("jail%d", rec.JID)
	}
}

// addLink connects a jail with its bridge, and moves interfaces into it.
func (r Registry) addLink(rec *record) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", rec.First.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if rec.Veth != "" {
		if err := r.plug(rec, ns); err != nil {
			return err
		}
	}
	for _, name := range rec.Spec.Link.Interfaces {
		link, err := linkByName(name)
		if err == nil {
			err = netlink.LinkSetNsFd(link, int(ns.Fd()))
		}
		if err != nil {
			return fmt.Errorf("vnet.interface: move %s into the jail: %w", name, err)
		}
	}
	return rec.inNetwork(rec.setUpInside)
}

// plug makes the two ends of the link, one in the bridge and one in the jail.
func (r Registry) plug(rec *record, ns *os.File) error {
	all, err := r.lockAll() // or the bridge is removed before it has a port
	if err != nil {
		return err
	}
	defer all.Close()
	bridge, err := r.bridge(rec)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = rec.Veth, bridge.Attrs().Index, net.FlagUp
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: insideName, PeerNamespace: netlink.NsFd(ns.Fd())}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the link %s to bridge %s: %w", rec.Veth, rec.Bridge, err)
	}
	return nil
}

// bridge finds the jail's bridge, or makes it.
func (r Registry) bridge(rec *record) (netlink.Link, error) {
	link, err := netlink.LinkByName(rec.Bridge)
	if err == nil && link.Type() != "bridge" {
		return nil, fmt.Errorf("vnet.bridge: %s is no bridge but a %s: name a bridge, or one that is to be made", rec.Bridge, link.Type())
	}
	if !isNotFound(err) {
		return link, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Flags, attrs.HardwareAddr = rec.Bridge, net.FlagUp, ownMAC()
	rec.MakesBridge = true // as long as it has no alias, which it cannot be made with
	if err := r.save(rec); err != nil {
		return nil, err
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", rec.Bridge, err)
	}
	if link, err = netlink.LinkByName(rec.Bridge); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, madeByUs); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", rec.Bridge, err)
	}
	return link, rec.giveGateways(link)
}

// ownMAC is one for a bridge, so that it keeps it: else it is that of a port, and
// another one when that port goes, which the other jails do not hear of.
func ownMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac)
	mac[0] = mac[0]&^1 | 2 // of one station, locally administered
	return mac
}

// giveGateways gives a bridge of ours the addresses that jails have for gateways:
// the host is what they lead to.
func (rec *record) giveGateways(bridge netlink.Link) error {
	for _, gateway := range rec.Spec.Link.Gateways {
		for _, a := range rec.Spec.Addresses {
			if !a.Prefix.Masked().Contains(gateway) || gateway == a.Prefix.Addr() {
				continue
			}
			own := Address{Prefix: netip.PrefixFrom(gateway, a.Prefix.Bits())}
			if err := netlink.AddrAdd(bridge, own.forNetlink()); err != nil {
				return fmt.Errorf("vnet.gateway: add %v to %s: %w", own.Prefix, rec.Bridge, err)
			}
			break
		}
	}
	return nil
}

// insideLink is the interface that has a vnet jail's addresses, or "".
func (rec *record) insideLink() string {
	switch {
	case rec.Veth != "":
		return insideName
	case len(rec.Spec.Link.Interfaces) > 0:
		return rec.Spec.Link.Interfaces[0]
	}
	return ""
}

// setUpInside gives the jail's end its addresses and routes. It runs in the jail's
// network.
func (rec *record) setUpInside() error {
	name := rec.insideLink()
	if name == "" {
		return nil
	}
	if err := addAddresses(rec.onInterfaces()); err != nil {
		return err
	}
	link, err := linkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set the jail's %s up: %w", name, err)
	}
	return rec.routes()
}

// routes makes sure of a vnet jail's default routes, in its network.
func (rec *record) routes() error {
	if len(rec.Spec.Link.Gateways) == 0 {
		return nil
	}
	link, err := linkByName(rec.insideLink())
	if err != nil {
		return err
	}
	for _, gateway := range rec.Spec.Link.Gateways {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("vnet.gateway %v: %w: want an address of the network that the jail is in", gateway, err)
		}
	}
	return nil
}

// removeLink removes a jail's link, and its bridge if that was made for jails and
// this was the last one.
func (r Registry) removeLink(rec *record) error {
	if rec.Veth == "" {
		return nil
	}
	all, err := r.lockAll()
	if err != nil {
		return err
	}
	defer all.Close()
	if err := deleteLink(rec.Veth); err != nil {
		return fmt.Errorf("remove the link %s: %w", rec.Veth, err)
	}
	bridge, err := netlink.LinkByName(rec.Bridge)
	if isNotFound(err) || err == nil && bridge.Attrs().Alias != madeByUs && !rec.MakesBridge {
		return nil
	}
	if err != nil {
		return err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == bridge.Attrs().Index {
			return nil
		}
	}
	return deleteLink(rec.Bridge)
}

// deleteLink deletes an interface; that there is none is no error.
func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(link); !isNotFound(err) {
		return err
	}
	return nil
}

// returnInterfaces moves interfaces back that were moved into a jail: with its
// namespace the kernel would delete those that are not hardware.
func (rec *record) returnInterfaces() error {
	if len(rec.Spec.Link.Interfaces) == 0 || !rec.First.alive() {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", rec.First.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	var errs []error
	for _, name := range rec.Spec.Link.Interfaces {
		link, err := h.LinkByName(name)
		if isNotFound(err) {
			continue
		}
		if err == nil {
			err = h.LinkSetNsFd(link, int(home.Fd()))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
