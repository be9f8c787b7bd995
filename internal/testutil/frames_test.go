package testutil

import (
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	a4 = netip.MustParseAddrPort("10.0.0.1:1001")
	b4 = netip.MustParseAddrPort("10.0.0.2:2000")
	a6 = netip.MustParseAddrPort("[2001:db8::1]:1001")
	b6 = netip.MustParseAddrPort("[2001:db8::2]:2000")
)

// The decoder is gopacket's, and so are the checksums that it makes anew.
func TestFramesAreWhatGopacketWouldMakeOfThem(t *testing.T) {
	for name, frame := range map[string][]byte{
		"UDP4":        UDP4(a4, b4, []byte("odd")),
		"UDP6":        UDP6(a6, b6, []byte("even")),
		"TCP4":        TCP4(a4, b4, SYN, nil),
		"TCP6":        TCP6(a6, b6, ACK, []byte("x")),
		"ARP request": ARP(ARPRequest, a4.Addr(), b4.Addr(), BroadcastMAC),
		"ARP reply":   ARP(ARPReply, a4.Addr(), b4.Addr(), MACOf(b4.Addr())),
		"solicit":     NeighborSolicit(a6.Addr(), b6.Addr()),
		"advert":      NeighborAdvert(a6.Addr(), b6.Addr()),
		"tagged":      Tagged(UDP4(a4, b4, nil), 0x8100, 7),
		"multicast":   UDP6(a6, netip.MustParseAddrPort("[ff02::fb]:2000"), []byte("m")),
	} {
		packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		if e := packet.ErrorLayer(); e != nil {
			t.Errorf("%s does not decode: %v", name, e.Error())
			continue
		}
		for _, layer := range packet.Layers() {
			if l, ok := layer.(interface {
				SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
			}); ok {
				l.SetNetworkLayerForChecksum(packet.NetworkLayer())
			}
		}
		again := gopacket.NewSerializeBuffer()
		fix := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
		if err := gopacket.SerializePacket(again, fix, packet); err != nil {
			t.Errorf("%s does not serialize: %v", name, err)
			continue
		}
		// gopacket pads short frames.
		if got := again.Bytes(); len(got) < len(frame) || string(got[:len(frame)]) != string(frame) {
			t.Errorf("%s:\n got %x\nwant %x", name, frame, got)
		}
	}
}
