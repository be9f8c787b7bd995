package ebpf_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
	"jailtap/internal/testutil"
)

// packetSocket is a packet socket on an interface of n that the program filters.
func packetSocket(t *testing.T, n *testutil.Namespace, ifname string, kind int, l loaded) (fd int) {
	t.Helper()
	err := n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, l.Programs[ebpf.Program].FD()); err != nil {
			return err
		}
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		iface, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL
		proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, all))
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: iface.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// received are the numbers at the ends of the frames that arrived, up to last.
func received(t *testing.T, fd int, last uint16) map[uint16]bool {
	t.Helper()
	got := map[uint16]bool{}
	buf := make([]byte, 2048)
	for !got[last] {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, 5000); err != nil || n == 0 {
			t.Fatalf("the last frame did not arrive: %v", err)
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatal(err)
		}
		got[binary.BigEndian.Uint16(buf[n-2:])] = true
	}
	return got
}

func TestTagsInMetadataCountAsTagsInTheFrame(t *testing.T) {
	testutil.NeedRoot(t)
	near, far := testutil.NewNamespace(t), testutil.NewNamespace(t)
	near.VethTo(t, far, "near", "far")
	w := world{rand.New(rand.NewPCG(802, 1))}
	const frames = 2000
	for _, vlans := range []bpf.VLANs{{}, {Any: true}, {IDs: []uint16{7}}, {IDs: []uint16{0, 7}}} {
		for _, view := range []bpf.LinkType{bpf.Ethernet, bpf.LinuxSLL2} {
			t.Run(fmt.Sprintf("%v, VLANs %+v", view, vlans), func(t *testing.T) {
				s := w.scope()
				s.Policy, s.VLANs = bpf.Full, vlans
				kind, file, net := unix.SOCK_RAW, whole, 14
				if view == bpf.LinuxSLL2 {
					kind, file, net = unix.SOCK_DGRAM, cookedOnEthernet, 20
				}
				l := loadScope(t, bpf.View{LinkType: view, Live: true}, s, nil, cilium.SocketFilter)
				fd := packetSocket(t, near, "near", kind, l)

				var sent [][]byte
				for i := range frames {
					sent = append(sent, binary.BigEndian.AppendUint16(w.frame(), uint16(i)))
				}
				inScope := testutil.ARP(testutil.ARPRequest, w.addrOf(true), w.addrOf(true), testutil.BroadcastMAC)
				sent[frames-1] = binary.BigEndian.AppendUint16(inScope, frames-1)
				far.Inject(t, "far", sent...)

				got := received(t, fd, frames-1)
				tagged, strict := 0, 0
				for i, frame := range sent {
					f := file(frame)
					etherType := binary.BigEndian.Uint16(frame[12:])
					switch want := s.Match(view, f) && !hiddenTag(view, f, 1); {
					case want == got[uint16(i)]:
						if want && etherType == 0x8100 {
							tagged++
						}
					case want && endsInAddresses(f, net, etherType):
						strict++
					default:
						t.Fatalf("Match says %v, arrived %v\nframe %x\nscope %+v", want, !want, frame, s)
					}
				}
				t.Logf("%d frames of %d arrived, %d of them tagged; %d cut frames judged more strictly", len(got), frames, tagged, strict)
				if (tagged == 0) != vlans.None() {
					t.Errorf("%d tagged frames arrived", tagged)
				}
			})
		}
	}
}

// cookedOnEthernet is what a capture file has of a frame that a SOCK_DGRAM
// socket gets from an Ethernet device.
func cookedOnEthernet(frame []byte) []byte {
	f := cooked(frame)
	if [6]byte(frame) == testutil.BroadcastMAC {
		f[10] = 1 // PACKET_BROADCAST
	}
	return f
}
