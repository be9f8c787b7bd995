package loader

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

func TestVLANTagsArePutBackIntoEthernetFrames(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		s := scopeOf(1)
		s.VLANs.Any = true
		tap := l.open(t, Config{Engine: e, Scope: s})
		plain := udp(1, 2, "own")
		frames := [][]byte{
			testutil.Tagged(plain, unix.ETH_P_8021Q, 7),
			testutil.Tagged(plain, unix.ETH_P_8021AD, 7),
			testutil.Tagged(plain, unix.ETH_P_8021Q, 0xe000), // priority, VLAN 0
			testutil.Tagged(testutil.Tagged(plain, unix.ETH_P_8021Q, 7), unix.ETH_P_8021AD, 8),
			plain,
		}
		check(t, l.exchange(t, tap, frames...), frames...)

		s.VLANs = bpf.VLANs{IDs: []uint16{7}}
		if err := tap.SetScope(s); err != nil {
			t.Fatal(err)
		}
		check(t, l.exchange(t, tap, frames...), frames[0], frames[1], frames[4])
	})
}

// sll2 is the frame as tcpdump -i any --linktype LINUX_SLL2 shows it
// (LINKTYPE_LINUX_SLL2 in the list of link types).
func sll2(frame []byte, ifindex int, hatype uint16, pktType byte) []byte {
	b := append(slices.Clone(frame[12:14]), 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(ifindex))
	b = binary.BigEndian.AppendUint16(b, hatype)
	b = append(b, pktType, 6)
	b = slices.Concat(b, frame[6:12], []byte{0, 0})
	return append(b, frame[14:]...)
}

func TestFramesOfAnyInterfaceAreCooked(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		named := l.open(t, Config{NoScope: true})
		tap := l.open(t, Config{Interface: Any, Engine: e, Scope: scopeOf(1)})
		if tap.LinkType() != bpf.LinuxSLL2 || tap.Ifindex() != 0 || tap.Interface() != Any {
			t.Errorf("%v, %d, %s", tap.LinkType(), tap.Ifindex(), tap.Interface())
		}
		own := testutil.To(udp(2, 1, "own"), testutil.MAC{2, 0, 0, 0, 0, 9})
		arp := testutil.ARP(testutil.ARPRequest, station(2).Addr(), station(1).Addr(), testutil.BroadcastMAC)
		tagged := testutil.Tagged(own, unix.ETH_P_8021Q, 7)
		check(t, l.exchange(t, tap, own, udp(2, 3, "foreign"), arp, tagged),
			sll2(own, named.Ifindex(), unix.ARPHRD_ETHER, unix.PACKET_OTHERHOST),
			sll2(arp, named.Ifindex(), unix.ARPHRD_ETHER, unix.PACKET_BROADCAST))
	})
}

func TestFramesAreCutToTheSnaplen(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		s := scopeOf(1)
		s.VLANs.Any = true
		keepAll := byteIs(0, 2, bpf.KeepAll)
		tap := l.open(t, Config{Engine: e, Scope: s, Snaplen: 50})
		filtered := l.open(t, Config{Engine: e, Scope: s, Snaplen: 50, Filter: program(keepAll)})
		judged := l.open(t, Config{Engine: e, Scope: s, Filter: program(byteIs(0, 2, 50))})
		for _, frame := range [][]byte{
			udp(1, 2, "a payload that is too long"),
			testutil.Tagged(udp(1, 2, "a payload that is too long"), unix.ETH_P_8021Q, 7),
			udp(1, 2, "short"),
		} {
			l.send(t, frame, marker[:50])
			for _, tap := range []*Tap{tap, filtered, judged} {
				got := next(t, tap)
				want := frame[:min(50, len(frame))]
				if !bytes.Equal(got.data, want) || got.len != len(frame) {
					t.Errorf("got %x (%d on the wire), want %x (%d)", got.data, got.len, want, len(frame))
				}
			}
			next(t, tap) // the marker, which the other's program rejects
		}
	})
}

// next is the next packet.
func next(t *testing.T, tap *Tap) (got seen) {
	t.Helper()
	err := tap.Read(t.Context(), func(p *Packet) error {
		got = seen{slices.Clone(p.Data), p.Len, p.Time, p.Outgoing}
		return errEnough
	})
	if err != errEnough {
		t.Fatal(err)
	}
	return got
}

func TestTimeStampsAreInNanosecondsAndInOrder(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	last := time.Now()
	var fractions int64
	for _, got := range l.exchange(t, tap, slices.Repeat([][]byte{udp(1, 2, "own")}, 100)...) {
		if got.time.Before(last) {
			t.Errorf("%v comes after %v", got.time, last)
		}
		last = got.time
		fractions |= int64(last.Nanosecond()) % 1000
	}
	if time.Now().Before(last) || fractions == 0 {
		t.Errorf("last at %v, now %v; digits behind the microsecond: %#x", last, time.Now(), fractions)
	}
}

func TestDirectionIsAsSeenFromTheInterface(t *testing.T) {
	l := newLab(t)
	in, out := udp(1, 2, "in"), udp(1, 2, "out")
	for direction, want := range map[Direction][][]byte{
		In: {in}, Out: {out}, InOut: {in, out}, "": {in, out},
	} {
		tap := l.open(t, Config{Scope: scopeOf(1), Direction: direction})
		l.send(t, in)
		l.near.Inject(t, "eth0", out)
		l.send(t, marker)
		l.near.Inject(t, "eth0", marker)
		got := until(t, tap, "the end")
		check(t, got, want...)
		for _, f := range got {
			if f.outgoing != bytes.HasSuffix(f.data, []byte("out")) {
				t.Errorf("%q: outgoing is %t", f.data, f.outgoing)
			}
		}
		tap.Close()
	}
}

func TestOnLoopbackEachFrameIsSeenOnce(t *testing.T) {
	l := newLab(t)
	frame := testutil.To(udp(1, 1, "own"), testutil.MAC{})
	for _, c := range []struct {
		name      string
		direction Direction
		outgoing  bool
	}{{"lo", InOut, false}, {"lo", In, false}, {"lo", Out, true}, {Any, InOut, false}} {
		tap := l.open(t, Config{Interface: c.name, Scope: scopeOf(1), Direction: c.direction})
		l.near.Inject(t, "lo", frame, frame, marker)
		got := until(t, tap, "the end")
		if len(got) != 2 || got[0].outgoing != c.outgoing {
			t.Errorf("%s, %s: got %d frames, outgoing %t; want 2, %t", c.name, c.direction, len(got), got[0].outgoing, c.outgoing)
		}
		if c.name == "lo" && tap.LinkType() != bpf.Ethernet {
			t.Errorf("lo is %v", tap.LinkType())
		}
		tap.Close()
	}
}

// tun makes a tun device in ns. What is written to the file comes in on it.
func tun(t *testing.T, ns *testutil.Namespace, name string) *os.File {
	t.Helper()
	var file *os.File
	err := ns.Do(func() (err error) {
		if file, err = os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(int(file.Fd()), unix.TUNSETIFF, ifr)
	})
	if os.IsNotExist(err) {
		testutil.Skip(t, "needs /dev/net/tun")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	setLink(t, ns, name, true)
	return file
}

func TestFramesOfDevicesWithoutALinkHeaderAreRaw(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		device := tun(t, l.near, "tun0")
		tap := l.open(t, Config{Interface: "tun0", Engine: e, Scope: scopeOf(1)})
		if tap.LinkType() != bpf.Raw {
			t.Fatalf("tun0 is %v", tap.LinkType())
		}
		for _, frame := range [][]byte{udp(1, 2, "own"), udp(2, 3, "foreign"), marker} {
			if _, err := device.Write(frame[14:]); err != nil {
				t.Fatal(err)
			}
		}
		check(t, until(t, tap, "the end"), udp(1, 2, "own")[14:])
	})
}
