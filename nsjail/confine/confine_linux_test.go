package confine

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func init() {
	scenes["one"] = oneAddress
	scenes["many"] = manyAddresses
	scenes["six"] = onlyIPv6
	scenes["listen"] = listenAnywhere
	scenes["talk"] = []rule{{"", talk, ""}}
	scenes["stay"] = []rule{{"", stay, ""}}
}

// oneAddress is what a jail with 10.0.0.5 does.
var oneAddress = []rule{
	{"prison_local_ip4: the wildcard is the jail's only address", bind("udp4", "0.0.0.0 53"), "10.0.0.5"},
	{"prison_local_ip4: so it is of TCP", bind("tcp4", "0.0.0.0 22"), "10.0.0.5"},
	{"prison_local_ip4: loopback is the jail's address", bind("tcp4", "127.0.0.1 22"), "10.0.0.5"},
	{"prison_local_ip4: the jail's own", bind("tcp4", "10.0.0.5 22"), "10.0.0.5"},
	{"prison_check_ip4: the host's", bind("tcp4", "10.0.0.1 22"), "EADDRNOTAVAIL"},
	{"prison_check_ip4: one of nobody", bind("udp4", "10.9.9.9 53"), "EADDRNOTAVAIL"},
	{"prison_check_ip4: other loopback addresses are not the jail's", bind("udp4", "127.0.0.2 53"), "EADDRNOTAVAIL"},
	{"prison_check_ip4: multicast", bind("udp4", "224.0.0.251 5353"), "EADDRNOTAVAIL"},
	{"prison_check_ip4: broadcast", bind("udp4", "255.255.255.255 68"), "EADDRNOTAVAIL"},
	{"prison_check_ip4: with IP_FREEBIND", bindWith(unix.IP_FREEBIND, "10.0.0.1 22"), "EADDRNOTAVAIL"},
	{"prison_check_ip4: with IP_TRANSPARENT", bindWith(unix.IP_TRANSPARENT, "10.0.0.1 22"), "EADDRNOTAVAIL"},
	{"prison_check_af: no IPv6", bind("tcp6", ":: 22"), "EAFNOSUPPORT"},
	{"raw sockets", made(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), "EPROTONOSUPPORT"},
	{"ping sockets", made(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), "EACCES"}, // icmp(7): ping_group_range has nobody
	{"UDP-Lite", made(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE), "EPROTONOSUPPORT"},
	{"Multipath TCP", made(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), "EPROTONOSUPPORT"},
	{"prison_get_ip4: connections leave from the jail's address", connect("tcp4", "", "10.0.0.1 7"), "10.0.0.5"},
	{"prison_get_ip4: also of UDP", connect("udp4", "", "10.0.0.1 7"), "10.0.0.5"},
	{"prison_get_ip4: also after a bind(2) to the wildcard", connect("udp4", "0.0.0.0 1000", "10.0.0.1 7"), "10.0.0.5"},
	{"prison_get_ip4: also with MSG_FASTOPEN", fastOpen("10.0.0.1 7"), "10.0.0.5"},
	{"prison_get_ip4: datagrams", send("udp4", "10.0.0.1 7", nil), "10.0.0.5"},
	{"prison_remote_ip4: loopback is the jail", connect("tcp4", "", "127.0.0.1 7"), "ECONNREFUSED"},
	{"prison_remote_ip4: all of 127.0.0.0/8", connect("tcp4", "", "127.9.9.9 7"), "ECONNREFUSED"},
	{"in_pcbladdr: so is the wildcard", connect("tcp4", "", "0.0.0.0 7"), "ECONNREFUSED"},
	{"prison_remote_ip4: the jail reaches itself", itself("tcp4", "127.0.0.1"), "10.0.0.5 from 10.0.0.5"},
	{"prison_check_ip4: another source of one datagram", send("udp4", "10.0.0.1 7", from("10.0.0.1")), "EADDRNOTAVAIL"},
	{"prison_check_ip4: the jail's own source of one datagram", send("udp4", "10.0.0.1 7", from("10.0.0.5")), "10.0.0.5"},
	{"another source of one datagram where the socket is connected", connectedFrom("10.0.0.1 7", "10.0.0.1"), "EADDRNOTAVAIL"},
	{"after it was disconnected", disconnected("10.0.0.1 7"), "10.0.0.5"},
}

func TestAJailWithOneAddressIsHeldToIt(t *testing.T) {
	l := newJail(t, "10.0.0.5")
	l.echo()
	// What a jail would reach at the host's loopback if it were not held.
	l.in(func() error {
		listener, err := net.Listen("tcp", "127.0.0.1:7")
		if err == nil {
			t.Cleanup(func() { listener.Close() })
		}
		return err
	})
	l.holds("one")
}

// manyAddresses is what a jail with 10.0.0.5, 10.0.0.6 and fd00::5 does.
var manyAddresses = []rule{
	{"prison_local_ip4: of several the wildcard stays", bind("udp4", "0.0.0.0 53"), "0.0.0.0"},
	{"prison_local_ip4: loopback is the first", bind("udp4", "127.0.0.1 53"), "10.0.0.5"},
	{"prison_local_ip4: the second", bind("udp4", "10.0.0.6 53"), "10.0.0.6"},
	{"prison_check_ip4: the host's", bind("udp4", "10.0.0.1 53"), "EADDRNOTAVAIL"},
	{"prison_get_ip4: connections leave from the first", connect("tcp4", "", "10.0.0.1 7"), "10.0.0.5"},
	{"in_pcbladdr: unless the socket has one", connect("tcp4", "10.0.0.6 0", "10.0.0.1 7"), "10.0.0.6"},
	{"not as prison_get_ip4: after a bind(2) to the wildcard it is too late for a source", connect("tcp4", "0.0.0.0 0", "10.0.0.1 7"), "EADDRNOTAVAIL"},
	{"prison_get_ip4: datagrams", send("udp4", "10.0.0.1 7", nil), "10.0.0.5"},
	{"prison_local_ip6: the wildcard of a socket that also is of IPv4 stays", bind("tcp6", ":: 22"), "::"},
	{"prison_local_ip6: that of one with IPV6_V6ONLY is the only one", bindOnly("tcp6", ":: 22"), "fd00::5"},
	{"prison_local_ip6: loopback is the first", bind("tcp6", "::1 22"), "fd00::5"},
	{"prison_check_ip6: the host's", bind("tcp6", "fd00::1 22"), "EADDRNOTAVAIL"},
	{"prison_check_ip6: multicast", bind("udp6", "ff02::1 22"), "EADDRNOTAVAIL"},
	{"prison_local_ip4: of mapped addresses", bind("udp6", "::ffff:127.0.0.1 53"), "::ffff:10.0.0.5"},
	{"prison_check_ip4: of mapped addresses", bind("udp6", "::ffff:10.0.0.1 53"), "EADDRNOTAVAIL"},
	{"prison_get_ip6: connections leave from the first", connect("tcp6", "", "fd00::1 7"), "fd00::5"},
	{"prison_get_ip6: also of UDP", connect("udp6", "", "fd00::1 7"), "fd00::5"},
	{"prison_get_ip6: datagrams", send("udp6", "fd00::1 7", nil), "fd00::5"},
	{"prison_get_ip4: of mapped addresses", connect("tcp6", "", "::ffff:10.0.0.1 7"), "10.0.0.5"},
	{"prison_get_ip4: of datagrams to mapped addresses", send("udp6", "::ffff:10.0.0.1 7", nil), "10.0.0.5"},
	{"prison_remote_ip6: loopback is the jail", connect("tcp6", "", "::1 7"), "ECONNREFUSED"},
	{"prison_remote_ip6: so is the wildcard", connect("tcp6", "", ":: 7"), "ECONNREFUSED"},
	{"prison_remote_ip4: mapped loopback is the jail", connect("tcp6", "", "::ffff:127.0.0.1 7"), "ECONNREFUSED"},
	{"prison_remote_ip6: the jail reaches itself", itself("tcp6", "::1"), "fd00::5 from fd00::5"},
	{"prison_check_ip6: another source of one datagram", send("udp6", "fd00::1 7", from("fd00::1")), "EADDRNOTAVAIL"},
	{"prison_check_ip6: the jail's own source of one datagram", send("udp6", "fd00::1 7", from("fd00::5")), "fd00::5"},
	{"prison_check_ip4: another mapped source of one datagram", send("udp6", "::ffff:10.0.0.1 7", from("::ffff:10.0.0.1")), "EADDRNOTAVAIL"},
	{"raw sockets", made(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6), "EPROTONOSUPPORT"},
}

func TestAJailWithSeveralAddressesIsHeldToThem(t *testing.T) {
	l := newJail(t, "10.0.0.5", "fd00::5", "10.0.0.6")
	l.echo()
	l.holds("many")
}

// onlyIPv6 is what a jail with fd00::5 does.
var onlyIPv6 = []rule{
	{"prison_check_af: no IPv4", bind("tcp4", "0.0.0.0 22"), "EAFNOSUPPORT"},
	{"prison_local_ip6: the wildcard is the jail's only address, as there is no IPv4", bind("tcp6", ":: 22"), "fd00::5"},
	{"prison_local_ip4: of mapped addresses", bind("tcp6", "::ffff:10.0.0.5 22"), "EAFNOSUPPORT"},
	{"prison_remote_ip4: of mapped addresses", connect("tcp6", "", "::ffff:10.0.0.1 7"), "EAFNOSUPPORT"},
	{"prison_remote_ip4: of datagrams to mapped addresses", send("udp6", "::ffff:10.0.0.1 7", nil), "EAFNOSUPPORT"},
	{"prison_get_ip6", connect("tcp6", "", "fd00::1 7"), "fd00::5"},
}

func TestAJailWithoutIPv4HasNone(t *testing.T) {
	l := newJail(t, "fd00::5")
	l.echo()
	l.holds("six")
}

// The jail listens where it can, and says which datagrams come.
func talk() string {
	return with("udp6", func(fd int) string {
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{})
		unix.SetsockoptIPMreq(fd, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: [4]byte{224, 0, 0, 251}, Interface: [4]byte{127, 0, 0, 1}})
		if err := unix.Bind(fd, sockaddr(":: 5353")); err != nil {
			return failed(err)
		}
		fmt.Println("ready")
		for {
			what := heard(fd, nil)
			fmt.Println(what)
			if what == "end" {
				return "done"
			}
		}
	})
}

func TestPacketsForOtherAddressesNeverReachTheJail(t *testing.T) {
	l := newJail(t, "10.0.0.5", "10.0.0.6", "fd00::5")
	l.in(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		groups := &net.IPNet{IP: net.IPv4(224, 0, 0, 0), Mask: net.CIDRMask(4, 32)}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: groups, Scope: netlink.SCOPE_LINK})
	})
	p := l.act("talk")
	if got := p.next(); got != "ready" {
		t.Fatal(got)
	}
	l.in(func() error {
		for _, to := range []string{
			"10.0.0.1", "10.0.0.5", "127.0.0.1", "10.0.0.6", "224.0.0.251", "fd00::1", "::1", "fd00::5",
		} {
			c, err := net.Dial("udp", net.JoinHostPort(to, "5353"))
			if err != nil {
				return err
			}
			fmt.Fprint(c, to)
			c.Close()
		}
		c, err := net.Dial("udp", "10.0.0.5:5353")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = fmt.Fprint(c, "end")
		return err
	})
	for _, want := range []string{"10.0.0.5", "10.0.0.6", "fd00::5", "end"} {
		if got := p.next(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// listenAnywhere is listen(2) without bind(2), and at the wildcard address.
var listenAnywhere = []rule{{"", func() string {
	return with("tcp4", func(fd int) string {
		if err := unix.Listen(fd, 1); err != nil {
			return failed(err)
		}
		sa, _ := unix.Getsockname(fd)
		fmt.Println(sa.(*unix.SockaddrInet4).Port)
		return heardLine() // none: until the test ends
	})
}, ""}}

func TestWhoListensWithoutAnAddressIsReachedAtTheJailsOnly(t *testing.T) {
	l := newJail(t, "10.0.0.5", "10.0.0.6")
	port := l.act("listen").next()
	for to, want := range map[string]bool{"10.0.0.5": true, "10.0.0.6": true, "10.0.0.1": false, "127.0.0.1": false} {
		l.in(func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(to, port), 300*time.Millisecond)
			if err == nil {
				c.Close()
			}
			if (err == nil) != want {
				t.Errorf("%s: %v", to, err)
			}
			return nil
		})
	}
}

// stay has a socket from before a change of addresses, and does as lines say.
func stay() string {
	return with("udp4", func(fd int) string {
		err := unix.Bind(fd, sockaddr("10.0.0.5 53"))
		fmt.Println(local(fd, err))
		for {
			switch line := heardLine(); line {
			case "send":
				fmt.Println(heard(fd, unix.Sendto(fd, []byte("hello"), 0, sockaddr("10.0.0.1 7"))))
			case "bind":
				fmt.Println(bind("udp4", "0.0.0.0 53")())
			default:
				return line
			}
		}
	})
}

// heardLine is a line of standard input.
func heardLine() (line string) {
	fmt.Scanln(&line)
	return line
}

func TestAChangeOfAddressesHoldsOldSocketsToo(t *testing.T) {
	l := newJail(t, "10.0.0.5")
	l.echo()
	p := l.act("stay")
	asks := func(line, want string) {
		t.Helper()
		fmt.Fprintln(p.in, line)
		if got := p.next(); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
	if got := p.next(); got != "10.0.0.5" {
		t.Fatal(got)
	}
	asks("send", "10.0.0.5")
	if err := Change(l.cgroup, addresses("10.0.0.6")); err != nil {
		t.Fatal(err)
	}
	asks("send", "EADDRNOTAVAIL")
	asks("bind", "10.0.0.6")
	if err := Change(l.cgroup, addresses("10.0.0.5", "10.0.0.6")); err != nil {
		t.Fatal(err)
	}
	asks("send", "10.0.0.5")
	asks("bind", "EADDRINUSE") // of several it is the wildcard, and the old socket has the port
}

func TestRulesAreThoseOfOneCgroup(t *testing.T) {
	l := newLab(t)
	if err := Change(l.cgroup, addresses("10.0.0.5")); err == nil {
		t.Error("a cgroup without rules was changed")
	}
	if err := Attach(l.cgroup, addresses("10.0.0.5")); err != nil {
		t.Fatal(err)
	}
	l.in(func() error { // this process is not in it
		listener, err := net.Listen("tcp", "10.0.0.1:22")
		if err == nil {
			listener.Close()
		}
		return err
	})
	if err := Attach(l.cgroup+"-none", addresses("10.0.0.5")); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// The things that the lists above need once.

// made says whether there is such a socket.
func made(family, typ, protocol int) func() string {
	return func() string {
		fd, err := unix.Socket(family, typ, protocol)
		if err != nil {
			return failed(err)
		}
		unix.Close(fd)
		return "a socket"
	}
}

// bindWith sets an option of IP before.
func bindWith(option int, to string) func() string {
	return func() string {
		return with("tcp4", func(fd int) string {
			if err := unix.SetsockoptInt(fd, unix.SOL_IP, option, 1); err != nil {
				return failed(err)
			}
			err := unix.Bind(fd, sockaddr(to))
			return local(fd, err)
		})
	}
}

// from is a control message with the source of a datagram (ip(7), ipv6(7)).
func from(addr string) []byte {
	switch sa := sockaddr(addr + " 0").(type) {
	case *unix.SockaddrInet4:
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: sa.Addr})
	case *unix.SockaddrInet6:
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: sa.Addr})
	}
	return nil
}

// connectedFrom sends from another address on a socket that is connected.
func connectedFrom(to, source string) func() string {
	return func() string {
		return with("udp4", func(fd int) string {
			if err := unix.Connect(fd, sockaddr(to)); err != nil {
				return failed(err)
			}
			return heard(fd, unix.Sendmsg(fd, []byte("hello"), from(source), nil, 0))
		})
	}
}

// disconnected connects, takes it back (connect(2), AF_UNSPEC), and sends.
func disconnected(to string) func() string {
	return func() string {
		return with("udp4", func(fd int) string {
			if err := unix.Connect(fd, sockaddr(to)); err != nil {
				return failed(err)
			}
			_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unix.RawSockaddr{Family: unix.AF_UNSPEC})), unix.SizeofSockaddrInet4)
			if errno != 0 {
				return failed(errno)
			}
			return heard(fd, unix.Sendto(fd, []byte("hello"), 0, sockaddr(to)))
		})
	}
}

// fastOpen connects by sending (tcp(7)).
func fastOpen(to string) func() string {
	return func() string {
		return with("tcp4", func(fd int) string {
			return heard(fd, unix.Sendto(fd, []byte("hello"), unix.MSG_FASTOPEN, sockaddr(to)))
		})
	}
}

// itself has the jail listen and connect to that.
func itself(kind, at string) func() string {
	return func() string {
		return with(kind, func(listener int) string {
			if err := unix.Bind(listener, sockaddr(at+" 99")); err != nil {
				return failed(err)
			}
			if err := unix.Listen(listener, 1); err != nil {
				return failed(err)
			}
			return with(kind, func(fd int) string {
				if err := unix.Connect(fd, sockaddr(at+" 99")); err != nil {
					return failed(err)
				}
				server, peer, err := unix.Accept(listener)
				if err != nil {
					return failed(err)
				}
				defer unix.Close(server)
				return local(server, nil) + " from " + addressOf(peer)
			})
		})
	}
}
