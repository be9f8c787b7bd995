//go:build amd64 || arm64

package jail

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// vnetJail is a jail's specification with an address.
func vnetJail(t *testing.T, name string, addrs ...string) Spec {
	s := Spec{Name: name, Path: tree(t), Network: VNET}
	for _, a := range addrs {
		s.Addresses = append(s.Addresses, Address{Prefix: netip.MustParsePrefix(a)})
	}
	return s
}

// links are the names of the host's interfaces, but lo.
func links(t *testing.T) []string {
	t.Helper()
	list, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		if l.Attrs().Name != "lo" {
			names = append(names, l.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestVnetJailsReachEachOtherAndTheirGateway(t *testing.T) {
	y := newYard(t)
	a := vnetJail(t, "a", "10.9.0.1/24", "fd09::1/64")
	a.Link.Gateways = []netip.Addr{netip.MustParseAddr("10.9.0.254")}
	ja := y.must(a)
	jb := y.must(vnetJail(t, "b", "10.9.0.2/24", "fd09::2/64"))
	if got := links(t); !slices.Equal(got, []string{"jail1", "jail2", "jailtap0"}) {
		t.Errorf("%v", got)
	}
	for _, to := range []string{"10.9.0.2", "fd09::2"} {
		serve, err := jb.Start(Command{Argv: []string{"sh", "-c", "echo hello from b | nc -l -p 7"}, Env: []string{"PATH=/bin"}})
		if err != nil {
			t.Fatal(err)
		}
		ja.says(t, "for i in $(seq 100); do nc "+to+" 7 2>/dev/null && break; sleep 0.05; done", "hello from b")
		serve.Kill()
		serve.Wait()
	}
	listener, err := net.Listen("tcp", "10.9.0.254:7")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if c, err := listener.Accept(); err == nil {
			c.Write([]byte("the host"))
			c.Close()
		}
	}()
	ja.says(t, "nc 10.9.0.254 7", "the host")
	ja.says(t, "ip route | while read a b c d; do [ $a = default ] && echo $c; done", "10.9.0.254")
	ja.fails(t, "ip addr add 10.9.0.3/24 dev eth0")
	y.remove("a")
	if got := links(t); !slices.Equal(got, []string{"jail2", "jailtap0"}) {
		t.Errorf("%v", got)
	}
	y.remove("b")
	if got := links(t); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

func TestABridgeThatWasThereStays(t *testing.T) {
	y := newYard(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	defer deleteLink("br0")
	spec := vnetJail(t, "a", "10.9.0.1/24")
	spec.Addresses[0].Interface = "br0"
	y.must(spec)
	y.remove("a")
	if got := links(t); !slices.Equal(got, []string{"br0"}) {
		t.Errorf("%v", got)
	}
}

func TestAnInterfaceMovesIntoAJailAndBack(t *testing.T) {
	y := newYard(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "one"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "two"}); err != nil {
		t.Fatal(err)
	}
	defer deleteLink("one")
	spec := vnetJail(t, "a", "10.9.0.1/24")
	spec.Link.Interfaces = []string{"one"}
	j := y.must(spec)
	if got := links(t); !slices.Equal(got, []string{"two"}) {
		t.Errorf("%v", got)
	}
	if out, _ := j.run(t, "ip addr show dev one", User{}); !strings.Contains(out, "inet 10.9.0.1/24") {
		t.Errorf("%s", out)
	}
	y.remove("a")
	if got := links(t); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("%v", got)
	}
}

func TestAVnetJailThatCannotBeConnectedLeavesNothing(t *testing.T) {
	y := newYard(t)
	for want, change := range map[string]func(*Spec){
		`there is no interface "none0": there are lo`: func(s *Spec) { s.Link.Interfaces = []string{"none0"} },
		"vnet.bridge: lo is no bridge but a device":   func(s *Spec) { s.Link.Bridge = "lo" },
		"vnet.gateway 10.8.0.1: ":                     func(s *Spec) { s.Link.Gateways = []netip.Addr{netip.MustParseAddr("10.8.0.1")} },
	} {
		spec := vnetJail(t, "a", "10.9.0.1/24")
		spec.Persist = true
		change(&spec)
		if _, err := y.Create(t.Context(), spec, Starter{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if got := links(t); len(got) != 0 {
			t.Errorf("%s: %v are left", want, got)
		}
	}
	if _, err := os.Stat(y.file("a")); err == nil {
		t.Error("a record is left")
	}
}

func TestAVnetJailMayHaveRawSockets(t *testing.T) {
	y := newYard(t)
	spec := vnetJail(t, "a", "10.9.0.1/24")
	spec.RawSockets = true
	j := y.must(spec)
	if out, exit := j.run(t, "ping -c 1 -W 5 10.9.0.1", User{}); exit != 0 {
		t.Errorf("%s", out)
	}
}
