//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"jailtap/bpf"
	"jailtap/internal/netlab"
	"jailtap/internal/testutil"
)

// namePrefix begins the names of the demo's namespaces.
const namePrefix = "jtd"

// A host is a namespace with one interface, eth0 (br0 for the one that has the
// bridge).
type host struct {
	*netlab.Namespace
	name         string
	v4, v6, link netip.Addr
}

// scope is what is the host's own, by its addresses as listed here: what
// jailtap finds in the namespace is under test.
func (h *host) scope() bpf.Scope {
	var s bpf.Scope
	for _, a := range []netip.Addr{h.v4, h.v6, h.link} {
		s.Addrs = append(s.Addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	return s
}

// network is a host with a bridge and four more hosts at its ports.
type network struct {
	bridge, web, db, noisy, peer *host
}

func (n *network) all() []*host { return []*host{n.bridge, n.web, n.db, n.noisy, n.peer} }

// jails are the hosts that capture.
func (n *network) jails() []*host { return []*host{n.web, n.db, n.noisy} }

// buildNetwork returns what it has made also with an error, to be removed.
func buildNetwork() (*network, error) {
	netlab.RemoveStale(namePrefix)
	n := &network{}
	for i, h := range []**host{&n.bridge, &n.web, &n.db, &n.noisy, &n.peer} {
		name := []string{"host", "web", "db", "noisy", "peer"}[i]
		ns, err := netlab.New(netlab.Name(namePrefix, name))
		if err != nil {
			return n, err
		}
		number := byte(i + 1)
		*h = &host{
			Namespace: ns,
			name:      name,
			v4:        netip.AddrFrom4([4]byte{10, 77, 0, number}),
			v6:        netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 15: number}),
			link:      netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: number}),
		}
	}
	return n, n.connect()
}

func (n *network) connect() error {
	var ports []string
	for _, h := range n.all()[1:] {
		ports = append(ports, h.name)
		if err := h.Veth(n.bridge.Namespace, "eth0", h.name); err != nil {
			return err
		}
	}
	if err := n.bridge.Bridge("br0", ports...); err != nil {
		return err
	}
	for _, h := range n.all() {
		for _, addr := range []string{h.v4.String() + "/24", h.v6.String() + "/64", h.link.String() + "/64"} {
			if err := h.AddAddr(h.ifname(), addr); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *host) ifname() string {
	if h.name == "host" {
		return "br0"
	}
	return "eth0"
}

// ifindex is the number of the host's interface.
func (h *host) ifindex() (index int, err error) {
	err = h.Do(func() error {
		link, err := net.InterfaceByName(h.ifname())
		if err == nil {
			index = link.Index
		}
		return err
	})
	return index, err
}

func (n *network) remove() {
	for _, h := range n.all() {
		if h == nil {
			continue
		}
		if err := h.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, "demo: remove", h.Name, err)
		}
	}
}

// The markers are broadcast ARP requests, in everybody's scope, between
// addresses that nobody has.
var (
	marker1, marker2 = netip.MustParseAddr("10.77.0.251"), netip.MustParseAddr("10.77.0.252")

	startMarker = testutil.ARP(testutil.ARPRequest, marker1, marker2, testutil.BroadcastMAC)
	endMarker   = testutil.ARP(testutil.ARPRequest, marker2, marker1, testutil.BroadcastMAC)
)

// mark sends a marker, with time before and after it for frames under way on
// another CPU.
func (n *network) mark(ctx context.Context, marker []byte) error {
	if err := sleep(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	if err := n.bridge.Inject("br0", marker); err != nil {
		return err
	}
	return sleep(ctx, 200*time.Millisecond)
}

// waitForCaptures returns when all capture: they begin their files then.
func waitForCaptures(ctx context.Context, captures []*capture) error {
	for _, c := range captures {
		for !c.begun() {
			if err := c.ended(); err != nil {
				return err
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return fmt.Errorf("%v has not begun: %w", c, err)
			}
		}
	}
	return nil
}

// sleep returns early, with an error, when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return stopped(ctx)
	}
}

// stopped says why ctx has ended.
func stopped(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("it took longer than %v", longest)
	}
	return errors.New("interrupted")
}
