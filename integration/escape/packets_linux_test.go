//go:build amd64 || arm64

package escape

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// packets are frames that are made to be taken for the jail's. What is sent
// comes from outside, as another tenant's traffic would; which of it is foreign
// bpf.Scope.Match says, not how it is named here.
var packets = []attempt{
	packet("fragments", "the second fragment, with the jail's packet inside; fragments of the jail's own", fragments),
	packet("options of IPv4", "loose source route and record route with the jail's address; header lengths from 0 to 15", options4),
	packet("truncated headers", "IPv4, IPv6 and ARP, cut behind every byte", truncated),
	packet("one VLAN tag", "the jail's packet in VLAN 7, 0, 4095, and of all EtherTypes for tags", tagged),
	packet("nested VLAN tags", "QinQ and three tags, in all orders", nested),
	packet("extension headers of IPv6", "routing header and home address option with the jail's address", extensions),
	packet("IP in IP", "IPIP, 6in4, 4in6, GRE and ESP around the jail's packet", tunnels),
	packet("tunnels in UDP", "VXLAN, Geneve, GTP and Teredo around the jail's packet", udpTunnels),
	packet("other protocols around IPv4", "802.2 SNAP, PPPoE, MPLS, EtherIP's type, MACsec, loopback", encapsulated),
	packet("ARP with the address elsewhere", "as hardware address, behind the end, in an ARP of other lengths", arpFields),
	packet("RARP and unicast ARP of others", "replies and requests between two others", arpForeign),
	packet("IPv4 in IPv6 addresses", "mapped, compatible, 6to4, NAT64 and ISATAP forms of the jail's", mapped),
	packet("versions that lie", "IPv6 in the EtherType of IPv4, and the other way", versions),
	packet("the address at every offset", "the jail's four bytes at each place of a foreign packet", everywhere),
	packet("nearly the address", "one bit away, reversed, shifted by a byte", nearly),
	packet("errors about the jail's packets", "ICMP errors between two others that quote one", quoted),
	packet("empty frames", "a link-level header and nothing else, of every EtherType in scope", empty),
	packet("forged senders", "the jail's address as source: the jail's by definition", spoofed),
	classic("classic: IPv6", "the jail's own IPv6 is not in the scope of 2008", func() [][]byte {
		return [][]byte{udp(jail6, far6, "a"), udp(far6, jail6, "b"), udp(far6, netip.MustParseAddr("ff02::1"), "c")}
	}),
	classic("classic: ARP and RARP", "nor are these", func() [][]byte {
		request := testutil.ARP(testutil.ARPRequest, far4, jail4, testutil.BroadcastMAC)
		reply := testutil.ARP(testutil.ARPReply, jail4, far4, testutil.MACOf(far4))
		return [][]byte{request, reply, withType(request, unix.ETH_P_RARP)}
	}),
	classic("classic: fragments, options, tags", "as above, with the other policy", func() [][]byte {
		return slices.Concat(fragments(), options4(), tagged(), nested(), tunnels())
	}),
	{name: "super-packets", how: "TCP segments of up to 64 KB between two others, past GRO and TSO", in: both, control: true, do: superPackets},
	{name: "a ring and super-packets", how: "the same with a TPACKET_V3 ring", in: []setting{held}, do: superPacketsInRing},
}

// packet is an attempt with frames, each of which gets a source address of its
// own, by which it is known again.
func packet(name, how string, frames func() [][]byte) attempt {
	return attempt{name: name, how: how, in: both, do: watchCrafted, crafted: func(id func() mac) (all [][]byte) {
		for _, f := range frames() {
			all = append(all, from(id(), f))
		}
		return all
	}}
}

func classic(name, how string, frames func() [][]byte) attempt {
	a := packet(name, how, frames)
	a.policy = "classic"
	return a
}

func from(m mac, frame []byte) []byte {
	return slices.Concat(frame[:6], m[:], frame[12:])
}

// watchCrafted shows the judge all that comes up to the end of what was
// crafted, on sockets of both types.
func watchCrafted(a *attacker) error {
	fds := []int{a.bound(), a.socket(unix.SOCK_DGRAM)}
	a.bind(fds[1], "eth0")
	nonce := uint32(a.askNumber("inject"))
	n := 0
	for _, fd := range fds {
		n += a.untilEnd(fd, nonce)
	}
	return fmt.Errorf("%d frames of the jail's own were shown", n-len(fds))
}

// untilEnd counts the frames of this attempt, whose nonce it is; others' come too.
func (a *attacker) untilEnd(fd int, nonce uint32) (crafted int) {
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue
		}
		a.got(buf[:n], from)
		id, ok := craftedID(append(make([]byte, 6), addressOf(from)...))
		if !ok || id.nonce() != nonce {
			continue
		}
		crafted++
		if n >= 7 && string(buf[n-7:n]) == "the end" {
			return crafted
		}
	}
	broken("the end did not come")
	return 0
}

func addressOf(from unix.Sockaddr) []byte {
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		return ll.Addr[:min(ll.Halen, 8)]
	}
	return nil
}

// withType gives a frame another EtherType.
func withType(frame []byte, typ uint16) []byte {
	return slices.Concat(frame[:12], binary.BigEndian.AppendUint16(nil, typ), frame[14:])
}

// ipv4 is a packet with any protocol and any header length, in words.
func ipv4(src, dst netip.Addr, protocol byte, words int, rest []byte) []byte {
	h := udp(src, dst, "")[:34]
	h[14], h[23] = byte(0x40|words), protocol
	return slices.Concat(h, rest)
}

// ipv6 is a packet with any next header.
func ipv6(src, dst netip.Addr, next byte, rest []byte) []byte {
	h := udp(src, dst, "")[:54]
	h[20] = next
	binary.BigEndian.PutUint16(h[18:], uint16(len(rest)))
	return slices.Concat(h, rest)
}

// inner is a packet of the jail's without a link-level header.
func inner() []byte { return udp(jail4, far4, "inner")[14:] }

func fragments() [][]byte {
	flagged := func(frame []byte, flags uint16) []byte {
		f := slices.Clone(frame)
		binary.BigEndian.PutUint16(f[20:], flags)
		return f
	}
	foreign, own := ipv4(far4, other4, unix.IPPROTO_UDP, 5, inner()), udp(far4, jail4, "fragment")
	const more = 0x2000
	return [][]byte{flagged(foreign, more), flagged(foreign, more|1), flagged(foreign, 3), flagged(foreign, 0x1fff),
		flagged(own, more), flagged(own, more|1), flagged(own, 3),
		ipv6(far6, other6, unix.IPPROTO_FRAGMENT, slices.Concat([]byte{17, 0, 0, 8, 0, 0, 0, 1}, jail6.AsSlice())),
		ipv6(far6, jail6, unix.IPPROTO_FRAGMENT, []byte{17, 0, 0, 8, 0, 0, 0, 1})}
}

func options4() (all [][]byte) {
	const record, loose, strict = 7, 131, 137
	for _, option := range []byte{record, loose, strict} {
		rest := slices.Concat([]byte{option, 7, 4}, jail4.AsSlice(), []byte{0}, inner())
		all = append(all, ipv4(far4, other4, unix.IPPROTO_UDP, 7, rest))
	}
	for words := range 16 {
		all = append(all, ipv4(far4, other4, unix.IPPROTO_IPIP, words, slices.Concat(jail4.AsSlice(), jail4.AsSlice(), inner())))
	}
	return append(all, ipv4(far4, jail4, unix.IPPROTO_UDP, 6, []byte{1, 1, 1, 0}))
}

func truncated() (all [][]byte) {
	for _, f := range [][]byte{udp(far4, jail4, ""), udp(far4, other4, ""), udp(far6, jail6, ""), udp(far6, other6, ""),
		testutil.ARP(testutil.ARPReply, far4, jail4, testutil.MACOf(other4))} {
		for n := 14; n < len(f); n++ {
			all = append(all, f[:n])
		}
	}
	return all
}

func tagged() (all [][]byte) {
	own := udp(far4, jail4, "tagged")
	for _, id := range []uint16{7, 0, 1, 4095, 7 << 13} {
		for _, tpid := range []uint16{0x8100, 0x88a8} {
			all = append(all, testutil.Tagged(own, tpid, id))
		}
	}
	for _, tpid := range []uint16{0x9100, 0x9200, 0x9300} {
		all = append(all, testutil.Tagged(own, tpid, 7))
	}
	return all
}

func nested() (all [][]byte) {
	own := udp(far4, jail4, "nested")
	for _, outer := range []uint16{0x8100, 0x88a8, 0x9100} {
		for _, in := range []uint16{0x8100, 0x88a8} {
			twice := testutil.Tagged(testutil.Tagged(own, in, 7), outer, 7)
			all = append(all, twice, testutil.Tagged(twice, outer, 0), testutil.Tagged(testutil.Tagged(own, in, 0), outer, 0))
		}
	}
	return all
}

func extensions() [][]byte {
	routing := slices.Concat([]byte{17, 2, 0, 1, 0, 0, 0, 0}, jail6.AsSlice())
	segments := slices.Concat([]byte{17, 2, 4, 1, 0, 0, 0, 0}, jail6.AsSlice())
	home := slices.Concat([]byte{17, 2, 1, 2, 0, 0, 201, 16}, jail6.AsSlice())
	hop := slices.Concat([]byte{17, 2, 1, 20}, jail6.AsSlice(), make([]byte, 4))
	return [][]byte{ipv6(far6, other6, unix.IPPROTO_ROUTING, routing), ipv6(far6, other6, unix.IPPROTO_ROUTING, segments),
		ipv6(far6, other6, unix.IPPROTO_DSTOPTS, home), ipv6(far6, other6, unix.IPPROTO_HOPOPTS, hop),
		ipv6(far6, jail6, unix.IPPROTO_HOPOPTS, hop)}
}

func tunnels() [][]byte {
	const esp, ah = 50, 51
	inner6 := udp(jail6, far6, "inner")[14:]
	gre := slices.Concat([]byte{0, 0, 0x08, 0x00}, inner())
	return [][]byte{ipv4(far4, other4, unix.IPPROTO_IPIP, 5, inner()), ipv4(far4, other4, unix.IPPROTO_IPV6, 5, inner6),
		ipv6(far6, other6, unix.IPPROTO_IPIP, inner()), ipv6(far6, other6, unix.IPPROTO_IPV6, inner6),
		ipv4(far4, other4, unix.IPPROTO_GRE, 5, gre), ipv6(far6, other6, unix.IPPROTO_GRE, gre),
		ipv4(far4, other4, esp, 5, inner()), ipv4(far4, other4, ah, 5, inner()),
		ipv4(jail4, far4, unix.IPPROTO_IPIP, 5, udp(far4, other4, "in the jail's own tunnel")[14:])}
}

func udpTunnels() (all [][]byte) {
	frame := udp(jail4, far4, "inner")
	for _, port := range []uint16{4789, 6081, 2152, 3544, 8472} {
		for _, header := range [][]byte{{8, 0, 0, 0, 0, 0, 7, 0}, {0, 0, 0x65, 0x58, 0, 0, 7, 0}, {0x30, 0xff, 0, 40, 0, 0, 0, 1}, nil} {
			payload := string(header) + string(frame)
			all = append(all, testutil.UDP4(netip.AddrPortFrom(far4, port), netip.AddrPortFrom(other4, port), []byte(payload)))
		}
	}
	return all
}

func encapsulated() (all [][]byte) {
	for typ, header := range map[uint16][]byte{
		uint16(8 + len(inner())): {0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, // a length: 802.3 with SNAP
		unix.ETH_P_PPP_SES:       {0x11, 0, 0, 1, 0, byte(2 + len(inner())), 0, 0x21},
		unix.ETH_P_MPLS_UC:       {0, 0, 0x11, 0xff},
		unix.ETH_P_MPLS_MC:       {0, 0, 0x11, 0xff},
		unix.ETH_P_MACSEC:        make([]byte, 14),
		unix.ETH_P_LOOPBACK:      nil,
		unix.ETH_P_LOOP:          nil,
		unix.ETH_P_ALL:           nil,
		unix.ETH_P_TEB:           udp(jail4, far4, "")[:14],
		0x88b5:                   nil,
		0x0801:                   nil,
		0xffff:                   nil,
		0:                        nil,
	} {
		all = append(all, testutil.Ethernet(mac{}, mac{2, 0, 10, 0, 0, 9}, typ, slices.Concat(header, inner())))
	}
	return all
}

func arpFields() (all [][]byte) {
	reply := testutil.ARP(testutil.ARPReply, far4, other4, testutil.MACOf(other4))
	at := func(off int) []byte {
		f := append(slices.Clone(reply), make([]byte, 18)...)
		copy(f[off:], jail4.AsSlice())
		return f
	}
	for off := 14; off < len(reply)+14; off++ {
		all = append(all, at(off))
	}
	for _, lengths := range [][2]byte{{8, 4}, {0, 4}, {6, 16}, {6, 0}, {255, 255}} {
		f := slices.Clone(reply)
		f[18], f[19] = lengths[0], lengths[1]
		all = append(all, f)
	}
	return all
}

func arpForeign() (all [][]byte) {
	for _, op := range []uint16{1, 2, 3, 4, 8, 9} {
		f := testutil.ARP(op, far4, other4, testutil.MACOf(other4))
		all = append(all, f, withType(f, unix.ETH_P_RARP))
	}
	return append(all, testutil.ARP(testutil.ARPReply, jail4, far4, testutil.MACOf(far4)))
}

func mapped() (all [][]byte) {
	for _, text := range []string{"::ffff:10.0.0.5", "::10.0.0.5", "2002:a00:5::", "64:ff9b::10.0.0.5", "fe80::5efe:10.0.0.5", "2001:0:a00:5::",
		"2001:db8::10.0.0.5", "a00:5::"} {
		addr := netip.MustParseAddr(text)
		all = append(all, ipv6(addr, other6, unix.IPPROTO_UDP, []byte("mapped")), ipv6(far6, addr, unix.IPPROTO_UDP, []byte("mapped")))
	}
	return all
}

func versions() [][]byte {
	return [][]byte{withType(udp(far6, jail6, "as IPv4"), unix.ETH_P_IP), withType(udp(jail6, far6, "as IPv4"), unix.ETH_P_IP),
		withType(udp(far4, jail4, "as IPv6"), unix.ETH_P_IPV6), withType(udp(jail4, far4, "as IPv6"), unix.ETH_P_IPV6),
		withType(udp(far4, jail4, "as ARP, long enough for that"), unix.ETH_P_ARP)}
}

func everywhere() (all [][]byte) {
	base := udp(far4, other4, "0123456789abcdef0123456789abcdef")
	for off := 14; off+4 <= len(base); off++ {
		f := slices.Clone(base)
		copy(f[off:], jail4.AsSlice())
		f[12], f[13] = 8, 0
		all = append(all, f)
	}
	return all
}

func nearly() (all [][]byte) {
	for bit := range 32 {
		b := jail4.As4()
		b[bit/8] ^= 1 << (bit % 8)
		if b[0] < 224 { // multicast is everybody's
			all = append(all, ipv4(netip.AddrFrom4(b), other4, 17, 5, nil), withDestination(netip.AddrFrom4(b)))
		}
	}
	for bit := range 128 {
		b := jail6.As16()
		b[bit/8] ^= 1 << (bit % 8)
		all = append(all, ipv6(netip.AddrFrom16(b), other6, 17, nil))
	}
	for _, b := range [][4]byte{{5, 0, 0, 10}, {0, 10, 5, 0}, {0, 5, 10, 0}, {0, 0, 5, 10}, {0, 10, 0, 0}, {0, 0, 5, 0}} {
		all = append(all, ipv4(netip.AddrFrom4(b), other4, 17, 5, nil), ipv4(far4, netip.AddrFrom4(b), 17, 5, nil))
	}
	return all
}

// withDestination is an IPv4 packet to an address in a frame to a host.
func withDestination(dst netip.Addr) []byte { return testutil.To(ipv4(far4, dst, 17, 5, nil), mac{2}) }

func quoted() [][]byte {
	unreachable := slices.Concat([]byte{3, 3, 0, 0, 0, 0, 0, 0}, inner())
	redirect := slices.Concat([]byte{5, 1, 0, 0}, jail4.AsSlice(), inner())
	unreachable6 := slices.Concat([]byte{1, 4, 0, 0, 0, 0, 0, 0}, udp(jail6, far6, "")[14:])
	return [][]byte{ipv4(far4, other4, unix.IPPROTO_ICMP, 5, unreachable), ipv4(far4, other4, unix.IPPROTO_ICMP, 5, redirect),
		ipv6(far6, other6, unix.IPPROTO_ICMPV6, unreachable6), testutil.NeighborAdvert(other6, far6)}
}

func empty() (all [][]byte) {
	for _, typ := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP, unix.ETH_P_RARP, 0} {
		all = append(all, testutil.Ethernet(mac{}, mac{2}, typ, nil))
	}
	return all
}

func spoofed() [][]byte {
	return [][]byte{udp(jail4, other4, "from the jail, it says"), udp(jail6, other6, "from the jail, it says"),
		testutil.ARP(testutil.ARPReply, jail4, other4, testutil.MACOf(other4))}
}

func superPackets(a *attacker) error {
	fd := a.bound()
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	answer := make(chan string, 1)
	go func() { answer <- a.ask("bulk") }()
	largest, foreign := 0, false
	buf := make([]byte, 1<<17)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 10_000})
	for running := true; running; {
		select {
		case said := <-answer:
			if running = false; said != "<nil>" {
				broken("bulk: %s", said)
			}
		default:
		}
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == nil && n > 9000 {
			foreign = true
			a.got(buf[:256], from)
		}
		largest = max(largest, n)
	}
	if foreign {
		return nil
	}
	return errors.New("saw none of 4 MB")
}

func superPacketsInRing(a *attacker) error {
	fd := a.captive()
	must("ring", setRing(fd, unix.TPACKET_V3, 1<<17, 2))
	ring, err := unix.Mmap(fd, 0, 2<<17, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must("map the ring", err)
	a.bind(fd, "eth0")
	if answer := a.ask("bulk"); answer != "<nil>" {
		broken("bulk: %s", answer)
	}
	a.leaks(slices.Clone(ring))
	return errors.New("the ring has nothing of 4 MB")
}
