package packetline

import (
	"bytes"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"jailtap/internal/capfile"
	"jailtap/internal/captured"
	"jailtap/internal/testutil"
)

var epoch = time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)

// serialize makes a packet of layers, with lengths and checksums filled in.
func serialize(t testing.TB, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, parts...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

func ether(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: t}
}

// over4 is an Ethernet frame from 10.0.0.1 to 10.0.0.2.
func over4(t testing.TB, p layers.IPProtocol, parts ...gopacket.SerializableLayer) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Id: 7, Flags: layers.IPv4DontFragment, Protocol: p, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
	for _, part := range parts {
		if tcp, ok := part.(*layers.TCP); ok {
			if tcp.DstPort == 4000 {
				ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
			}
			_ = tcp.SetNetworkLayerForChecksum(ip)
		}
	}
	return serialize(t, append([]gopacket.SerializableLayer{ether(layers.EthernetTypeIPv4), ip}, parts...)...)
}

// connection is a TCP handshake, data both ways, and the end.
func connection(t testing.TB) (frames [][]byte) {
	mss := []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}},
		{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{0, 0, 1, 0, 0, 0, 0, 9}},
		{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}}}
	sack := []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindSACK, OptionLength: 10, OptionData: []byte{0, 0, 3, 0xf2, 0, 0, 3, 0xf7}}}
	for _, s := range []struct {
		tcp  layers.TCP
		data string
	}{
		{layers.TCP{SrcPort: 4000, DstPort: 4001, Seq: 1000, SYN: true, Window: 64240, Options: mss}, ""},
		{layers.TCP{SrcPort: 4001, DstPort: 4000, Seq: 7000, Ack: 1001, SYN: true, ACK: true, Window: 65535, Options: mss}, ""},
		{layers.TCP{SrcPort: 4000, DstPort: 4001, Seq: 1001, Ack: 7001, ACK: true, Window: 500}, ""},
		{layers.TCP{SrcPort: 4000, DstPort: 4001, Seq: 1001, Ack: 7001, ACK: true, PSH: true, Window: 500}, "hello"},
		{layers.TCP{SrcPort: 4001, DstPort: 4000, Seq: 7001, Ack: 1006, ACK: true, Window: 500, Options: sack}, ""},
		{layers.TCP{SrcPort: 4001, DstPort: 4000, Seq: 7001, Ack: 1006, ACK: true, PSH: true, URG: true, Urgent: 2, Window: 500}, "world!!"},
		{layers.TCP{SrcPort: 4000, DstPort: 4001, Seq: 1006, Ack: 7008, ACK: true, FIN: true, ECE: true, CWR: true, Window: 500}, ""},
		{layers.TCP{SrcPort: 4001, DstPort: 4000, Seq: 7008, RST: true}, ""},
		{layers.TCP{SrcPort: 4000, DstPort: 4001, Seq: 1000, Window: 1}, ""},
	} {
		frames = append(frames, over4(t, layers.IPProtocolTCP, &s.tcp, gopacket.Payload(s.data)))
	}
	return frames
}

func common(t testing.TB) [][]byte {
	a, b := netip.MustParseAddrPort("10.0.0.1:5000"), netip.MustParseAddrPort("10.0.0.2:5001")
	a6, b6 := netip.MustParseAddrPort("[fd00::1]:5000"), netip.MustParseAddrPort("[fd00::2]:5001")
	udp := testutil.UDP4(a, b, []byte("hello"))
	request := testutil.ARP(testutil.ARPRequest, a.Addr(), b.Addr(), testutil.BroadcastMAC)
	probe := bytes.Clone(request)
	copy(probe[32:], []byte{2, 0, 0, 0, 0, 9})
	reverse := testutil.ARP(3, a.Addr(), b.Addr(), testutil.BroadcastMAC)
	reverse[12], reverse[13] = 0x80, 0x35
	fragment := bytes.Clone(udp)
	fragment[21] = 9
	icmp := func(typ, code uint8, inner []byte) []byte {
		return over4(t, layers.IPProtocolICMPv4, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, code), Id: 3, Seq: 4}, gopacket.Payload(inner))
	}
	frames := append(connection(t),
		udp,
		testutil.UDP6(a6, b6, []byte("hello")),
		testutil.TCP6(a6, b6, testutil.SYN, nil),
		request, probe, append(request, make([]byte, 18)...),
		testutil.ARP(testutil.ARPReply, a.Addr(), b.Addr(), testutil.MACOf(b.Addr())),
		reverse,
		icmp(8, 0, []byte("0123456789")), icmp(0, 0, []byte("0123456789")),
		icmp(3, 3, udp[14:]), icmp(3, 1, udp[14:]), icmp(3, 0, udp[14:]), icmp(3, 2, udp[14:]), icmp(3, 4, udp[14:]), icmp(11, 0, udp[14:]),
		testutil.NeighborSolicit(a6.Addr(), b6.Addr()),
		testutil.NeighborAdvert(a6.Addr(), b6.Addr()),
		fragment,
		over4(t, 200, gopacket.Payload("abc")),
	)
	for _, kind := range []byte{128, 129, 133, 2, 3} {
		frames = append(frames, over6(t, kind, 0, testutil.UDP6(a6, b6, []byte("abc"))[14:]))
	}
	return append(frames, over6(t, 1, 4, testutil.UDP6(a6, b6, []byte("abc"))[14:]))
}

func over6(t testing.TB, kind, code byte, data []byte) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6,
		SrcIP: netip.MustParseAddr("fd00::2").AsSlice(), DstIP: netip.MustParseAddr("fd00::1").AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ether(layers.EthernetTypeIPv6), ip, icmp, gopacket.Payload(append([]byte{0, 3, 0, 4}, data...)))
}

// tcpdump prints frames with the given options, one string a packet.
func tcpdump(t testing.TB, linkType uint32, frames [][]byte, options ...string) []string {
	t.Helper()
	path, err := exec.LookPath("tcpdump")
	if err != nil {
		testutil.Skip(t, "tcpdump is not there")
	}
	var file bytes.Buffer
	w, err := capfile.NewWriter(&file, "test", capfile.Pcap, capfile.Section{}, capfile.Interface{LinkType: linkType, SnapLen: 262144})
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range frames {
		if err := w.Write(0, captured.Packet{Time: epoch, Data: frame, Len: len(frame)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append(options, "-nr", "-")...)
	cmd.Env = []string{"TZ=UTC"}
	cmd.Stdin = &file
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(string(out), "\n    ", " ")), "\n")
}

func compare(t *testing.T, p *Printer, linkType uint32, frames [][]byte, want []string) {
	t.Helper()
	if len(want) != len(frames) {
		t.Fatalf("tcpdump printed %d lines for %d frames:\n%s", len(want), len(frames), strings.Join(want, "\n"))
	}
	for i, frame := range frames {
		got := string(p.Append(nil, epoch, linkType, frame, len(frame)))
		if got != strings.ReplaceAll(want[i], "  ip-proto", " ip-proto") { // a slip of tcpdump's
			t.Errorf("frame %d\n got %q\nwant %q", i, got, want[i])
		}
	}
}

func TestLinesAreTcpdumps(t *testing.T) {
	frames := common(t)
	compare(t, &Printer{}, 1, frames, tcpdump(t, 1, frames))
	compare(t, &Printer{Quiet: true}, 1, frames, tcpdump(t, 1, frames, "-q"))
}

// Checksums are what -v of ours leaves out, and it keeps to one line.
var checksums = regexp.MustCompile(`cksum 0x[0-9a-f]{4} \(correct\), |\[(udp|icmp6) sum ok\] `)

func TestVerboseLinesAreTcpdumps(t *testing.T) {
	var frames [][]byte
	for _, frame := range common(t) {
		// What is about other packets, or has options, is long in tcpdump -v.
		whole := frame[21] != 9 // a fragment's checksum is of no interest here
		if frame[13] == 0 && frame[23] != 1 && whole || frame[13] == 6 || frame[13] == 0xdd && frame[20] != 58 {
			frames = append(frames, frame)
		}
	}
	want := tcpdump(t, 1, frames, "-v")
	for i := range want {
		want[i] = checksums.ReplaceAllString(want[i], "")
	}
	compare(t, &Printer{Verbose: true}, 1, frames, want)
}

func TestLinesOfOtherLinkTypesAreTcpdumps(t *testing.T) {
	ip := testutil.UDP4(netip.MustParseAddrPort("10.0.0.1:5000"), netip.MustParseAddrPort("10.0.0.2:5001"), []byte("abc"))[14:]
	ip6 := testutil.UDP6(netip.MustParseAddrPort("[fd00::1]:5000"), netip.MustParseAddrPort("[fd00::2]:5001"), []byte("abc"))[14:]
	join := func(header string, data []byte) []byte { return append([]byte(header), data...) }
	for linkType, frames := range map[uint32][][]byte{
		0:   {join("\x02\x00\x00\x00", ip), join("\x1c\x00\x00\x00", ip6)},
		108: {join("\x00\x00\x00\x02", ip), join("\x00\x00\x00\x1c", ip6)},
		101: {ip, ip6},
		113: {join("\x00\x00\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00\x08\x00", ip)},
		276: {
			join("\x08\x00\x00\x00\x00\x00\x00\x01\x03\x04\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00", ip),
			join("\x86\xdd\x00\x00\x00\x00\x00\x01\x03\x04\x04\x06\x00\x00\x00\x00\x00\x00\x00\x00", ip6),
		},
	} {
		p := &Printer{InterfaceName: func(uint32) string { return "lo" }}
		compare(t, p, linkType, frames, tcpdump(t, linkType, frames))
	}
}

func TestWhatTcpdumpShowsOtherwise(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.0.0.1:5000"), netip.MustParseAddrPort("10.0.0.2:5001")
	udp := testutil.UDP4(a, b, []byte("abc"))
	hosts := "10.0.0.1.5000 > 10.0.0.2.5001: UDP, length 3"
	extended := testutil.UDP6(netip.MustParseAddrPort("[fd00::1]:5000"), netip.MustParseAddrPort("[fd00::2]:5001"), []byte("abc"))
	extended[20] = 0 // hop-by-hop options in front
	extended = append(extended[:54:54], append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, extended[54:]...)...)
	extended[19] += 8
	cooked := append(append([]byte{8, 0, 0, 0, 0, 0, 0, 9, 3, 4, 4, 6}, make([]byte, 8)...), udp[14:]...)
	if got := string((&Printer{}).Append(nil, epoch, 276, cooked, len(cooked))); got != "05:06:07.123456 ifindex 9 Out IP "+hosts {
		t.Errorf("an interface without a name: %q", got)
	}
	for want, frame := range map[string][]byte{
		"vlan 7, p 2, IP " + hosts:                   testutil.Tagged(udp, 0x8100, 0x4007),
		"vlan 8, p 0, vlan 7, p 0, DEI, IP " + hosts: testutil.Tagged(testutil.Tagged(udp, 0x8100, 0x1007), 0x88a8, 8),
		"vlan 7, p 0, ethertype 0x88b5, length 3":    testutil.Tagged(testutil.Ethernet(testutil.MAC{}, testutil.MAC{}, 0x88b5, []byte("abc")), 0x8100, 7),
		"02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype 0x88b5, length 17": testutil.Ethernet(
			testutil.MAC{2, 0, 0, 0, 0, 1}, testutil.MAC{2, 0, 0, 0, 0, 2}, 0x88b5, []byte("abc")),
		"02:00:00:00:00:01 > 01:80:c2:00:00:00, 802.3, length 17": testutil.Ethernet(
			testutil.MAC{2, 0, 0, 0, 0, 1}, testutil.MAC{1, 0x80, 0xc2}, 3, []byte("abc")),
		"IP6 fd00::1.5000 > fd00::2.5001: HBH UDP, length 3": extended,
		"[|ether]":                       udp[:13],
		"IP [|ip]":                       udp[:30],
		"IP 10.0.0.1 > 10.0.0.2: [|udp]": udp[:40],
		"vlan 7, p 0, IP [|ip]":          testutil.Tagged(udp, 0x8100, 7)[:20],
		"ARP, [|arp]":                    testutil.ARP(1, a.Addr(), b.Addr(), testutil.BroadcastMAC)[:30],
	} {
		p := &Printer{}
		if got := string(p.Append(nil, epoch, 1, frame, len(frame))); got != "05:06:07.123456 "+want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestALineCostsNoAllocation(t *testing.T) {
	p := &Printer{}
	buf := make([]byte, 0, 1024)
	for i, frame := range append(connection(t), common(t)[9]) {
		if n := testing.AllocsPerRun(100, func() { p.Append(buf, epoch, 1, frame, len(frame)) }); n > 1 {
			t.Errorf("frame %d: %v allocations", i, n)
		}
	}
}

// FuzzAppend: no frame makes the printer fail, or print more than a line.
func FuzzAppend(f *testing.F) {
	for _, frame := range common(f) {
		f.Add(uint32(1), frame)
		f.Add(uint32(276), append(make([]byte, 20), frame...))
	}
	f.Fuzz(func(t *testing.T, linkType uint32, frame []byte) {
		for _, p := range []*Printer{{}, {Quiet: true}, {Verbose: true}} {
			line := p.Append(nil, epoch, linkType, frame, len(frame))
			if bytes.ContainsAny(line, "\n\r\x00\x1b") {
				t.Fatalf("%q", line)
			}
		}
	})
}
