//go:build amd64 || arm64

package jail

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"jailtap/nsjail/confine"
)

// ground is an interface with the host's address 10.9.0.254, and sets lo up.
func ground(t *testing.T) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "ground0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "ground1"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := deleteLink("ground0"); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"lo", "ground0", "ground1"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := addAddresses([]Address{{"ground0", netip.MustParsePrefix("10.9.0.254/24")}}); err != nil {
		t.Fatal(err)
	}
}

// network is what the host has: interfaces, and addresses but for link-local ones.
func network(t *testing.T) []string {
	t.Helper()
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	list := links(t)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			list = append(list, a.IPNet.String())
		}
	}
	slices.Sort(list)
	return list
}

// sharedJail is a jail's specification with addresses, INTERFACE|ADDRESS or ADDRESS.
func sharedJail(t *testing.T, name string, addrs ...string) Spec {
	return Spec{Name: name, Path: tree(t), Network: Shared, Addresses: addressList(addrs...)}
}

func addressList(list ...string) (addrs []Address) {
	for _, text := range list {
		ifname, addr, ok := strings.Cut(text, "|")
		if !ok {
			ifname, addr = "", text
		}
		addrs = append(addrs, Address{ifname, netip.MustParsePrefix(addr)})
	}
	return addrs
}

func TestASharedJailHasItsAddressesAndNoOthers(t *testing.T) {
	y := newYard(t)
	ground(t)
	before := network(t)
	j := y.must(sharedJail(t, "a", "ground0|10.9.0.1/24", "ground0|fd09::1/64"))
	if namespace(t, j.PID(), "net") != namespace(t, os.Getpid(), "net") {
		t.Error("it has a network of its own")
	}
	if now := network(t); !slices.Contains(now, "10.9.0.1/24") || !slices.Contains(now, "fd09::1/64") {
		t.Errorf("the host has %v", now)
	}
	whoAreYou(t)
	// What listens at all addresses is reached at the jail's, from the jail.
	j.says(t, "(echo hello | nc -l -p 7 &) ; for i in $(seq 100); do nc 127.0.0.1 7 2>/dev/null && break; sleep 0.05; done", "hello")
	j.says(t, "nc 10.9.0.254 8", "you are 10.9.0.1")
	j.fails(t, "ip addr add 10.9.0.3/24 dev ground0")
	j.fails(t, "ping -c 1 10.9.0.254")
	y.remove("a")
	if now := network(t); !slices.Equal(now, before) {
		t.Errorf("the host has %v, and had %v", now, before)
	}
}

// whoAreYou has the host tell those who connect to 10.9.0.254, port 8, their address.
func whoAreYou(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "10.9.0.254:8")
	if err != nil {
		t.Fatal(err)
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
}

func TestAnAddressThatTheHostHadStays(t *testing.T) {
	y := newYard(t)
	ground(t)
	before := network(t)
	y.must(sharedJail(t, "a", "10.9.0.254/32"))
	y.remove("a")
	if now := network(t); !slices.Equal(now, before) {
		t.Errorf("the host has %v, and had %v", now, before)
	}
}

func TestAddressesThatASharedJailCannotHave(t *testing.T) {
	y := newYard(t)
	ground(t)
	y.must(sharedJail(t, "b", "ground0|10.9.0.2/24"))
	before := network(t)
	for addr, want := range map[string]string{
		"ground0|10.9.0.2/24": "address 10.9.0.2 is that of jail b",
		"lo|10.9.0.254/24":    "address 10.9.0.254 is in use on interface ground0",
		"10.9.0.3/24":         "address 10.9.0.3 is on no interface",
		"none0|10.9.0.3/24":   `there is no interface "none0": there are lo, ground1, ground0`,
		"ground0|fe80::9/64":  "a link-local address is another one on each interface",
		"ground0|0.0.0.0/32":  "bad address 0.0.0.0",
		"ground0|224.0.0.1/4": "bad address 224.0.0.1",
	} {
		spec := sharedJail(t, "a", addr)
		spec.Persist = true
		if _, err := y.Create(t.Context(), spec, Starter{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", addr, err, want)
		}
	}
	if _, err := y.Create(t.Context(), sharedJail(t, "a", "ground0|10.9.0.3/24", "ground0|10.9.0.3/32"), Starter{}); err == nil || !strings.Contains(err.Error(), "there twice") {
		t.Errorf("%v", err)
	}
	if now := network(t); !slices.Equal(now, before) {
		t.Errorf("the host has %v, and had %v", now, before)
	}
}

func TestAJailsAddressesChangeWhileItRuns(t *testing.T) {
	y := newYard(t)
	ground(t)
	before := network(t)
	shared := y.must(sharedJail(t, "a", "ground0|10.9.0.1/24", "ground0|fd09::1/64"))
	whoAreYou(t)
	shared.says(t, "nc 10.9.0.254 8", "you are 10.9.0.1")
	vnet := vnetJail(t, "b", "10.8.0.1/24")
	vnet.Link.Gateways = []netip.Addr{netip.MustParseAddr("10.8.0.254")}
	own := y.must(vnet)
	y.changes("a", "ground0|10.9.0.2/24", "ground0|10.9.0.3/24")
	if now := network(t); slices.Contains(now, "10.9.0.1/24") || !slices.Contains(now, "10.9.0.3/24") {
		t.Errorf("the host has %v", now)
	}
	shared.says(t, "nc 10.9.0.254 8", "you are 10.9.0.2")
	y.changes("b", "10.8.0.2/24", "10.8.0.3/24")
	own.says(t, "ip -4 addr show dev eth0 | while read a b c; do [ $a = inet ] && echo $b; done", "10.8.0.2/24\n10.8.0.3/24")
	own.says(t, "ip route | while read a b c d; do [ $a = default ] && echo $c; done", "10.8.0.254")
	y.remove("a")
	y.remove("b")
	if now := network(t); !slices.Equal(now, before) {
		t.Errorf("the host has %v, and had %v", now, before)
	}
}

// changes gives a jail addresses, and checks that it is found with them.
func (y *yard) changes(name string, addrs ...string) {
	y.Helper()
	list := addressList(addrs...)
	if err := y.Modify(name, Change{Addresses: &list}); err != nil {
		y.Fatal(err)
	}
	if j, err := y.Find(name); err != nil || !slices.Equal(j.Spec().Addresses, list) {
		y.Fatalf("%v, %v", j, err)
	}
}

func TestAChangeThatFailsChangesNothing(t *testing.T) {
	y := newYard(t)
	ground(t)
	y.must(sharedJail(t, "a", "ground0|10.9.0.1/24"))
	y.must(sharedJail(t, "c", "ground0|10.9.0.7/24"))
	vnet := vnetJail(t, "b", "10.8.0.1/24")
	vnet.Link.Gateways = []netip.Addr{netip.MustParseAddr("10.8.0.254")}
	own := y.must(vnet)
	before := network(t)
	hostname, persist := "changed", false
	for want, c := range map[string]struct {
		jail  string
		addrs []Address
	}{
		"address 10.9.0.7 is that of jail c": {"a", addressList("ground0|10.9.0.2/24", "ground0|10.9.0.7/24")},
		"there is no interface":              {"a", addressList("ground0|10.9.0.2/24", "none0|10.9.0.3/24")},
		"has no address there":               {"a", nil},
		"linked to bridge jailtap0":          {"b", addressList("br7|10.8.0.2/24")},
		"vnet.gateway 10.8.0.254":            {"b", addressList("10.7.0.2/24")}, // its gateway is not there
	} {
		old, _ := y.Find(c.jail)
		err := y.Modify(c.jail, Change{Hostname: &hostname, Persist: &persist, Addresses: &c.addrs})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		now, _ := y.Find(c.jail)
		if !slices.Equal(now.Spec().Addresses, old.Spec().Addresses) || now.Spec().Hostname != old.Spec().Hostname || !now.Spec().Persist {
			t.Errorf("%s: it is %+v", want, now.Spec())
		}
	}
	if now := network(t); !slices.Equal(now, before) {
		t.Errorf("the host has %v, and had %v", now, before)
	}
	own.says(t, "ip -4 addr show dev eth0 | while read a b c; do [ $a = inet ] && echo $b; done; hostname", "10.8.0.1/24\nb")
	own.says(t, "ip route | while read a b c d; do [ $a = default ] && echo $c; done", "10.8.0.254")
}

// A jail -m that was killed has saved the record with what is to be added, and may have
// done any part of the rest.
func TestAChangeThatWasKilledCanBeMadeAgain(t *testing.T) {
	y := newYard(t)
	ground(t)
	y.must(sharedJail(t, "a", "ground0|10.9.0.1/24"))
	rec, err := y.load("a")
	if err != nil {
		t.Fatal(err)
	}
	before := network(t)
	rec.Added = append(rec.Added, addressList("ground0|10.9.0.2/24", "ground0|10.9.0.3/24")...)
	if err := y.save(rec); err != nil {
		t.Fatal(err)
	}
	if err := addAddresses(addressList("ground0|10.9.0.2/24")); err != nil {
		t.Fatal(err)
	}
	// What the jail may be held to is nobody else's.
	other := sharedJail(t, "b", "ground0|10.9.0.2/24")
	if _, err := y.Create(t.Context(), other, Starter{}); err == nil || !strings.Contains(err.Error(), "is that of jail a") {
		t.Errorf("%v", err)
	}
	y.changes("a", "ground0|10.9.0.2/24", "ground0|10.9.0.3/24")
	now := network(t)
	if slices.Contains(now, "10.9.0.1/24") || !slices.Contains(now, "10.9.0.2/24") || !slices.Contains(now, "10.9.0.3/24") {
		t.Errorf("the host has %v", now)
	}
	y.changes("a", "ground0|10.9.0.1/24")
	if now := network(t); !slices.Equal(now, before) {
		t.Errorf("the host has %v, and had %v", now, before)
	}
}

// Whoever enters a jail as soon as it is found enters one whose first process has given
// up its privileges, and whose sockets are held to its addresses.
func TestAJailIsConfinedBeforeItIsFound(t *testing.T) {
	y := newYard(t)
	ground(t)
	spec := sharedJail(t, "a", "ground0|10.9.0.1/24")
	spec.Persist = true
	for range 30 {
		made := make(chan error, 1)
		go func() {
			_, err := y.Create(t.Context(), spec, Starter{})
			made <- err
		}()
		var j *Jail
		for deadline := time.Now().Add(10 * time.Second); j == nil; {
			if j, _ = y.Find("a"); time.Now().After(deadline) {
				t.Fatal("no jail is found")
			}
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", j.PID()))
		if err != nil || !strings.Contains(string(status), "Seccomp:\t2\n") {
			t.Errorf("the first process is not confined: %v", err)
		}
		if err := confine.Change(j.rec.Cgroup, j.rec.Spec.plainAddresses()); err != nil {
			t.Errorf("its sockets are not held to its addresses: %v", err)
		}
		if err := <-made; err != nil {
			t.Fatal(err)
		}
		y.remove("a")
	}
}
