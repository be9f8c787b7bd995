package testutil

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"jailtap/internal/netlab"
)

// namePrefix begins the names of all namespaces that tests make.
const namePrefix = "jtt"

var (
	removeStale = sync.OnceFunc(func() { netlab.RemoveStale(namePrefix) })
	made        atomic.Int64
)

// A Namespace is a network namespace that lasts as long as the test.
type Namespace struct{ *netlab.Namespace }

// NewNamespace makes a namespace with lo up. Interfaces in it have no IPv6
// until AddAddr gives them an IPv6 address.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	NeedRoot(t)
	removeStale()
	n, err := netlab.New(netlab.Name(namePrefix, strconv.FormatInt(made.Add(1), 10)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Remove(); err != nil {
			t.Errorf("remove namespace %s: %v", n.Name, err)
		}
	})
	return &Namespace{n}
}

// VethTo makes a veth pair: name in n, peerName in peer, both up.
func (n *Namespace) VethTo(t testing.TB, peer *Namespace, name, peerName string) {
	t.Helper()
	if err := n.Veth(peer.Namespace, name, peerName); err != nil {
		t.Fatal(err)
	}
}

// AddAddr gives an interface an address, as "10.0.0.1/24".
func (n *Namespace) AddAddr(t testing.TB, ifname, cidr string) {
	t.Helper()
	if err := n.Namespace.AddAddr(ifname, cidr); err != nil {
		t.Fatal(err)
	}
}

// Inject writes whole Ethernet frames out of an interface.
func (n *Namespace) Inject(t testing.TB, ifname string, frames ...[]byte) {
	t.Helper()
	if err := n.Namespace.Inject(ifname, frames...); err != nil {
		t.Fatal(err)
	}
}
