package nsjail

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

func prefixes(addrs ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, a := range addrs {
		ip := netip.MustParseAddr(a)
		list = append(list, netip.PrefixFrom(ip, ip.BitLen()))
	}
	return list
}

// pair is a namespace with one end of a veth pair, eth0.
func pair(t *testing.T) *testutil.Namespace {
	ns := testutil.NewNamespace(t)
	ns.VethTo(t, testutil.NewNamespace(t), "eth0", "peer")
	return ns
}

func TestAddressesAreThoseOfAllInterfacesButLoopbackOnes(t *testing.T) {
	ns := pair(t)
	ns.AddAddr(t, "eth0", "10.1.0.2/24")
	ns.AddAddr(t, "eth0", "10.1.0.1/24") // secondary
	ns.AddAddr(t, "eth0", "2001:db8::1/64")
	ns.AddAddr(t, "eth0", "fe80::1/64")
	ns.AddAddr(t, "lo", "192.0.2.9/32")
	ns.AddAddr(t, "lo", "127.0.0.53/32")

	got, err := mustOpen(t, ns.Name).Addresses()
	if err != nil {
		t.Fatal(err)
	}
	want := prefixes("10.1.0.1", "10.1.0.2", "192.0.2.9", "2001:db8::1", "fe80::1")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAPeersAddressIsNotTheJails(t *testing.T) {
	ns := pair(t)
	addAddr(t, ns, &netlink.Addr{
		IPNet: &net.IPNet{IP: net.IPv4(10, 1, 0, 1), Mask: net.CIDRMask(32, 32)},
		Peer:  &net.IPNet{IP: net.IPv4(10, 1, 0, 2), Mask: net.CIDRMask(32, 32)},
	})
	got, err := mustOpen(t, ns.Name).Addresses()
	if want := prefixes("10.1.0.1"); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestATentativeAddressIsTheJails(t *testing.T) {
	ns := pair(t)
	ns.AddAddr(t, "eth0", "fe80::1/64") // turns IPv6 on
	ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		return netlink.LinkSetDown(link)
	})
	// Detection cannot end, nor begin, while the interface is down.
	addAddr(t, ns, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("2001:db8::1"), Mask: net.CIDRMask(64, 128)}})
	got, err := mustOpen(t, ns.Name).Addresses()
	if err != nil || !slices.Contains(got, prefixes("2001:db8::1")[0]) {
		t.Errorf("got %v, %v", got, err)
	}
}

func addAddr(t *testing.T, ns *testutil.Namespace, addr *netlink.Addr) {
	t.Helper()
	err := ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, addr)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// watching runs Watch until the test ends; what it reports comes down the
// channel, which holds more than any test here makes.
func watching(t *testing.T, j *Jail) <-chan []netip.Prefix {
	t.Helper()
	reports := make(chan []netip.Prefix, 10_000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- j.Watch(ctx, func(p []netip.Prefix) { reports <- p }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return reports
}

func TestWatchReportsTheFirstStateAndEveryChange(t *testing.T) {
	ns := pair(t)
	reports := watching(t, mustOpen(t, ns.Name))
	expect := func(want ...string) {
		t.Helper()
		if got := <-reports; !slices.Equal(got, prefixes(want...)) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	expect()
	ns.AddAddr(t, "eth0", "10.1.0.1/24")
	expect("10.1.0.1")
	ns.AddAddr(t, "eth0", "2001:db8::1/64")
	expect("10.1.0.1", "2001:db8::1")
	ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		return netlink.LinkDel(link)
	})
	for got := []string{"some"}; len(got) > 0; {
		got = got[:0]
		for _, p := range <-reports {
			got = append(got, p.String())
		}
	}
}

func TestManyChangesAtOnceArePutTogether(t *testing.T) {
	ns := pair(t)
	j := mustOpen(t, ns.Name)
	reports := watching(t, j)
	<-reports
	const n = 3000
	addMany(t, ns, n)
	last := 0
	for last < n {
		last = len(<-reports)
	}
	if len(reports) > n/4 {
		t.Errorf("%d reports of %d changes: they were not put together", len(reports), n)
	}
}

func TestAnOverflowOfTheSocketIsOneMoreEvent(t *testing.T) {
	ns := pair(t)
	sub, err := mustOpen(t, ns.Name).subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := sub.SetReceiveBufferSize(1, false); err != nil { // as small as the kernel lets it be
		t.Fatal(err)
	}
	addMany(t, ns, 100)
	if _, _, err := sub.Receive(); err != unix.ENOBUFS {
		t.Fatalf("Receive: %v; the test wants an overflow", err)
	}
	addMany(t, ns, 200)
	changed, failed := make(chan struct{}, 1), make(chan error, 1) // with room for an event, as watch has it
	go func() { failed <- listen(sub, changed) }()
	select {
	case <-changed:
	case err := <-failed:
		t.Error(err)
	}
}

func addMany(t *testing.T, ns *testutil.Namespace, n int) {
	t.Helper()
	err := ns.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for i := range n {
			ip := net.IPv4(10, 1, byte(i/250), byte(i%250))
			if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnAddressThatAnotherHostHasIsNotTheJails(t *testing.T) {
	ip := &net.IPNet{IP: net.ParseIP("2001:db8::1"), Mask: net.CIDRMask(64, 128)}
	if got := own([]netlink.Addr{{IPNet: ip, Flags: unix.IFA_F_DADFAILED | unix.IFA_F_TENTATIVE}}); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
}
