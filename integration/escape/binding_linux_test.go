//go:build amd64 || arm64

package escape

import (
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// binding are about sockets that their holders bind elsewhere.
var binding = []attempt{
	{name: "another interface", how: "bind(2) again, while frames come", in: all, control: true, do: rebind("eth1")},
	{name: "all interfaces", how: "bind(2) to number 0", in: all, control: true, do: rebind("any")},
	{name: "loopback", how: "bind(2) to lo", in: all, control: true, do: rebind("lo")},
	{name: "another link type", how: "bind(2) to tun0, whose packets forge Ethernet's offsets", in: all, control: true, do: rebind("tun0")},
	{name: "another link type, as datagrams", how: "SOCK_DGRAM on tun0", in: all, control: true, do: rebindDatagram},
	{name: "an upper interface", how: "bind(2) to a macvlan with another's hardware address", in: all, control: true, do: rebindUpper},
	{name: "a later interface", how: "bind(2) to one that was made after the socket", in: all, control: true, do: rebindLater},
	{name: "other protocols", how: "bind(2) for ARP, IPv6, VLAN tags, 802.2, loopback and all others", in: all, control: true, do: bindProtocols},
	{name: "bind by io_uring", how: "IORING_OP_BIND to each interface", in: all, do: bindByUring},
	{name: "from one link type to another without pause", how: "one thread binds, another reads", in: all, control: true, do: bindRace},
}

func rebind(ifname string) func(*attacker) error {
	return func(a *attacker) error {
		fd := a.bound()
		a.bind(fd, ifname)
		return a.look(fd)
	}
}

func rebindDatagram(a *attacker) error {
	fd := a.socket(unix.SOCK_DGRAM)
	a.bind(fd, "eth0")
	a.bind(fd, "tun0")
	return a.look(fd)
}

func rebindUpper(a *attacker) error {
	fd := a.captive()
	a.bind(fd, "upper0")
	return a.peek(fd)
}

func rebindLater(a *attacker) error {
	fd := a.bound()
	a.bind(fd, a.ask("interface", "later"))
	return a.look(fd)
}

func bindProtocols(a *attacker) error {
	fd := a.captive()
	var t tally
	for _, protocol := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP} {
		if err := bindFor(fd, "any", protocol); err != nil && a.setting == settled {
			t.add(err)
		}
		t.add(a.look(fd))
	}
	for _, protocol := range []uint16{unix.ETH_P_RARP, unix.ETH_P_8021Q, unix.ETH_P_8021AD, unix.ETH_P_802_2, unix.ETH_P_802_3,
		unix.ETH_P_SNAP, unix.ETH_P_LOOPBACK, unix.ETH_P_LOOP, 0xffff} {
		t.add(said("bind", bindFor(fd, "any", protocol)))
		t.add(a.peek(fd))
	}
	return t.refused()
}

func bindByUring(a *attacker) error {
	fd := a.captive()
	var t tally
	for _, ifname := range exits {
		t.add(uringBind(fd, index(ifname)))
	}
	bindTo(fd, "eth0")
	return then(t.met(), a.look(fd))
}

func bindRace(a *attacker) error {
	fd := a.captive()
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			bindTo(fd, []string{"eth0", "tun0", "any", "lo"}[n%4])
		}
		done <- n
	}()
	var met error
	for range 8 {
		if met = a.look(fd); met == nil {
			break
		}
	}
	stop.Store(true)
	n := <-done
	if met == nil {
		return nil
	}
	return fmt.Errorf("%w, bound often: %t", met, n > 8)
}

// interfaces are the numbers of those that there are.
func interfaces() (numbers []int) {
	links, err := net.Interfaces()
	must("interfaces", err)
	for _, l := range links {
		numbers = append(numbers, l.Index)
	}
	return numbers
}
