//go:build amd64 || arm64

package jail

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"jailtap/internal/testutil"
)

// world is a network beyond the host, which knows the host's address 10.8.0.1 and not
// the jails'. Who connects to 10.8.0.2, port 8, is told its address.
func world(t *testing.T) {
	t.Helper()
	there := testutil.NewNamespace(t)
	file, err := os.Open(there.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "down0", PeerNamespace: netlink.NsFd(file.Fd())}); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("up0")
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := deleteLink("up0"); err != nil {
			t.Error(err)
		}
	})
	if err := addAddresses([]Address{{"up0", netip.MustParsePrefix("10.8.0.1/24")}}); err != nil {
		t.Fatal(err)
	}
	err = there.Do(func() error {
		down, err := netlink.LinkByName("down0")
		if err == nil {
			err = netlink.LinkSetUp(down)
		}
		if err == nil {
			err = addAddresses([]Address{{"down0", netip.MustParsePrefix("10.8.0.2/24")}})
		}
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", "10.8.0.2:8")
		if err != nil {
			return err
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "you are %v\n", c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func natJail(t *testing.T, name string, addrs ...string) Spec {
	s := vnetJail(t, name, addrs...)
	s.Link.NAT, s.Link.Gateways = true, []netip.Addr{netip.MustParseAddr("10.9.0.254")}
	return s
}

func TestAVnetJailReachesTheWorldFromTheHostsAddress(t *testing.T) {
	y := newYard(t)
	world(t)
	_, err := y.Create(t.Context(), natJail(t, "a", "10.9.0.1/24"), Starter{})
	if err == nil || !strings.Contains(err.Error(), "sysctl -w net.ipv4.ip_forward=1") {
		t.Errorf("the host does not pass packets on: %v", err)
	}
	restore, err := setSysctl("/proc/sys/net/ipv4/ip_forward", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer restore()
	a := y.must(natJail(t, "a", "10.9.0.1/24"))
	b := y.must(natJail(t, "b", "10.9.0.2/24"))
	a.says(t, "nc 10.8.0.2 8", "you are 10.8.0.1")
	b.says(t, "nc 10.8.0.2 8", "you are 10.8.0.1")
	// Between jails nothing is hidden.
	b.says(t, "(echo hello | nc -l -p 7 >/dev/null 2>&1 &)", "")
	a.says(t, "for i in $(seq 100); do nc 10.9.0.2 7 2>/dev/null && break; sleep 0.05; done", "hello")
	y.changes("a", "10.9.0.3/24")
	a.says(t, "nc 10.8.0.2 8", "you are 10.8.0.1")
	y.remove("a")
	b.says(t, "nc 10.8.0.2 8", "you are 10.8.0.1")
	y.remove("b")
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil || len(tables) != 0 {
		t.Errorf("%v, %v are left", err, tables)
	}
}

func TestNATIsForVnetJailsThatLeadSomewhere(t *testing.T) {
	y := newYard(t)
	spec := vnetJail(t, "a", "10.9.0.1/24")
	spec.Link.NAT = true
	if _, err := y.Create(t.Context(), spec, Starter{}); err == nil || !strings.Contains(err.Error(), "want vnet, vnet.gateway and an address") {
		t.Errorf("%v", err)
	}
}
