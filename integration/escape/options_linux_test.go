//go:build amd64 || arm64

package escape

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// options are about everything else that can be set on, or asked of, a socket.
var options = []attempt{
	{name: "promiscuous, all multicast", how: "PACKET_ADD_MEMBERSHIP of every type", in: both, do: changeAndLook(joinAll), outside: promiscuous},
	{name: "ioctls of interfaces", how: "SIOCSIFFLAGS and others by a captive socket", in: both, do: changeAndLook(interfaceIoctls), outside: promiscuous},
	{name: "PACKET_COPY_THRESH", how: "a queue of whole frames beside the ring", in: both, do: changeAndLook(setInt(unix.PACKET_COPY_THRESH, 1))},
	{name: "every option of SOL_PACKET", how: "numbers 0 to 255 with 4, 16, 28 and 128 bytes", in: both, do: everyOption(unix.SOL_PACKET)},
	{name: "every option of SOL_SOCKET", how: "numbers 0 to 255 with 4, 16, 28 and 128 bytes", in: both, do: everyOption(unix.SOL_SOCKET)},
	{name: "every level", how: "options 0 to 63 of levels 0 to 299", in: both, do: changeAndLook(everyLevel)},
	{name: "marks and priorities", how: "SO_MARK, SO_PRIORITY, SO_TXTIME, SO_BINDTODEVICE, then send", in: both, do: changeAndSend(markSocket)},
	{name: "buffers beyond the limits", how: "SO_RCVBUFFORCE, SO_SNDBUFFORCE, PACKET_RESERVE", in: both, do: forceBuffers},
	{name: "what getsockopt tells", how: "every option of SOL_SOCKET and SOL_PACKET", in: both, do: readOptions},
	{name: "the scope's program", how: "SO_GET_FILTER", in: both, do: readFilter},
	{name: "count foreign frames", how: "PACKET_STATISTICS against what was shown", in: both, control: false, do: countFrames},
	{name: "time stamps and the error queue", how: "SO_TIMESTAMPING, PACKET_TX_TIMESTAMP, MSG_ERRQUEUE", in: both, do: errorQueue},
	{name: "a ring (TPACKET_V1)", how: "every slot of the memory, used or not", in: both, control: true, do: ringLook(0)},
	{name: "a ring (TPACKET_V3)", how: "every block of the memory, used or not", in: both, control: true, do: ringLook(2)},
	{name: "a ring of 256 MB", how: "PACKET_RX_RING: memory that is not the holder's", in: both, do: largeRing},
	{name: "a thousand small rings' worth of slots", how: "PACKET_RX_RING of impossible sizes", in: both, do: changeAndLook(oddRings)},
	{name: "version against ring", how: "two threads set PACKET_VERSION and PACKET_RX_RING (CVE-2016-8655)", in: both, do: versionRace},
	{name: "packet_diag", how: "sock_diag(7): filters of all packet sockets", in: both, control: true, do: readDiag},
	{name: "destroy by sock_diag", how: "SOCK_DESTROY of the neighbours' sockets", in: both, do: destroySockets},
	{name: "/proc/net/packet", how: "and all else in /proc/net", in: both, do: readProcNet},
}

func setInt(option, value int) func(int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, option, value) }
}

func promiscuous(w *world, _ *prey) string {
	if n := w.promiscuity("eth0") - w.promiscuous; n > 0 {
		return fmt.Sprint("the interface is promiscuous, ", n)
	}
	return ""
}

func joinAll(fd int) error {
	var t tally
	for typ := range uint16(5) {
		mreq := &unix.PacketMreq{Ifindex: int32(index("eth0")), Type: typ, Alen: 6, Address: [8]byte{1, 2, 3, 4, 5, 6}}
		t.add(unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, mreq))
	}
	if n := promiscuousFlags(fd); n != 0 {
		t.add(fmt.Errorf("flags %#x", n))
	}
	return t.met()
}

func promiscuousFlags(fd int) uint16 {
	ifr, err := unix.NewIfreq("eth0")
	must("name", err)
	must("flags", unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr))
	return ifr.Uint16() & (unix.IFF_PROMISC | unix.IFF_ALLMULTI)
}

func interfaceIoctls(fd int) error {
	var t tally
	for _, request := range []uint{unix.SIOCSIFFLAGS, unix.SIOCSIFHWADDR, unix.SIOCADDMULTI, unix.SIOCSIFMTU, unix.SIOCSIFNAME,
		unix.SIOCETHTOOL, unix.SIOCSHWTSTAMP, unix.SIOCBRADDIF, unix.SIOCSIFMAP} {
		ifr, err := unix.NewIfreq("eth0")
		must("name", err)
		ifr.SetUint16(unix.IFF_UP | unix.IFF_PROMISC)
		t.add(unix.IoctlIfreq(fd, request, ifr))
	}
	return t.met()
}

// everyOption sets what it can, and then does what a packet socket can.
func everyOption(level int) func(*attacker) error {
	return func(a *attacker) error {
		fd := a.bound()
		var t tally
		var last error
		for option := range 256 {
			for _, length := range []uintptr{4, 16, 28, 128} {
				value := [32]int32{1}
				t.add(setsockopt(fd, level, option, unsafe.Pointer(&value), length))
			}
		}
		// Some have made it one whose queue is small, or a ring.
		last = a.transmit(fd, sendBound)
		bindTo(fd, "eth0")
		return fmt.Errorf("%w; %w; %w", t.met(), last, a.peek(fd))
	}
}

func everyLevel(fd int) error {
	var t tally
	for level := range 300 {
		for option := range 64 {
			if level != unix.SOL_SOCKET && level != unix.SOL_PACKET {
				t.add(unix.SetsockoptInt(fd, level, option, 1))
			}
		}
	}
	return t.met()
}

// changeAndSend changes a socket and sends on it.
func changeAndSend(change func(fd int) error) func(*attacker) error {
	return func(a *attacker) error {
		fd := a.captive()
		met := change(fd)
		return then(said("change", met), a.transmit(fd, sendBound))
	}
}

func markSocket(fd int) error {
	var t tally
	for _, option := range []int{unix.SO_MARK, unix.SO_PRIORITY, unix.SO_TXTIME, unix.SO_BINDTODEVICE, unix.SO_MAX_PACING_RATE,
		unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_NO_CHECK, unix.SO_SNDBUF, unix.SO_INCOMING_CPU, unix.SO_RCVMARK} {
		t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 0))
	}
	return t.met()
}

func forceBuffers(a *attacker) error {
	fd := a.bound()
	var t tally
	t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<30))
	t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<30))
	if met := t.refused(); met == nil {
		return nil
	}
	t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_RESERVE, 0x7fffffff))
	t.add(setRing(fd, 2, 1<<16, 1))
	return then(t.met(), a.peek(fd))
}

func getsockopt(fd, level, option int, into []byte) (int, error) {
	n := uint32(len(into))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&into[0])), uintptr(unsafe.Pointer(&n)), 0)
	return int(n), orNil(errno)
}

func readOptions(a *attacker) error {
	fd := a.bound()
	a.look(fd)
	var t tally
	for _, level := range []int{unix.SOL_SOCKET, unix.SOL_PACKET} {
		for option := range 256 {
			into := make([]byte, 4096)
			_, err := getsockopt(fd, level, option, into)
			t.add(err)
			a.leaks(bytes.TrimRight(into, "\x00"))
		}
	}
	return t.met()
}

func readFilter(a *attacker) error {
	into := make([]byte, 4096*8)
	var count uint32 // of instructions, which is what the length means here
	for _, length := range []uint32{0, 1, 4096} {
		n := length
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(a.captive()), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(unsafe.Pointer(&into[0])), uintptr(unsafe.Pointer(&n)), 0)
		if count = n; errno != 0 {
			return errno
		}
	}
	if count == 0 {
		return errors.New("0 instructions")
	}
	return nil
}

func countFrames(a *attacker) error {
	fd := a.captive()
	a.bind(fd, "eth0")
	own, foreign := a.watch(fd, time.Second)
	var s struct{ packets, drops uint32 }
	_, err := getsockopt(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS, bytesOf(&s))
	must("statistics", err)
	more, _ := a.glanceAll(fd)
	if int(s.packets) > own+foreign+more {
		return nil
	}
	return errors.New("counts no more than was shown")
}

// glanceAll takes all that is there.
func (a *attacker) glanceAll(fd int) (all int, err error) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			return all, err
		}
		a.got(buf[:n], from)
		all++
	}
}

func errorQueue(a *attacker) error {
	fd := a.bound()
	var t tally
	t.add(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_TX_SOFTWARE|unix.SOF_TIMESTAMPING_SOFTWARE))
	t.add(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_TX_TIMESTAMP, unix.SOF_TIMESTAMPING_SOFTWARE))
	t.add(sendBound(fd, 0, a.frame()))
	buf := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	t.add(err)
	a.leaks(buf[:max(n, 0)])
	return t.met()
}

// setRing asks for a receive ring: struct tpacket_req or tpacket_req3.
func setRing(fd, version int, blockSize, blocks uint32) error {
	err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, version)
	if err != nil {
		return err
	}
	const frame = 2048
	req := &unix.TpacketReq3{Block_size: blockSize, Block_nr: blocks, Frame_size: frame, Frame_nr: blockSize / frame * blocks, Retire_blk_tov: 10}
	length := unsafe.Sizeof(*req)
	if version != unix.TPACKET_V3 {
		length = unsafe.Sizeof(unix.TpacketReq{})
	}
	return setsockopt(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, unsafe.Pointer(req), length)
}

// ringLook shows the judge all of a ring's memory, time and again.
func ringLook(version int) func(*attacker) error {
	return func(a *attacker) error {
		const block, blocks = 1 << 16, 2
		fd := a.captive()
		if err := setRing(fd, version, block, blocks); err != nil {
			return err
		}
		ring, err := unix.Mmap(fd, 0, block*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must("map the ring", err)
		a.bind(fd, "eth0")
		for range 500 {
			if time.Sleep(10 * time.Millisecond); bytes.Contains(ring, []byte(ownWord)) {
				break
			}
		}
		stay()
		a.leaks(bytes.Clone(ring))
		switch {
		case bytes.Contains(ring, []byte(foreignWord)):
			return nil
		case !bytes.Contains(ring, []byte(ownWord)):
			broken("no frames came to the ring")
		}
		return errors.New("the ring has own frames only")
	}
}

func largeRing(a *attacker) error {
	return then(setRing(a.captive(), unix.TPACKET_V2, 4<<20, 64), setRing(a.captive(), unix.TPACKET_V3, 1<<16, 4096))
}

func oddRings(fd int) error {
	var t tally
	for _, size := range []uint32{0, 1, 4095, 1 << 31, 0xfffff000} {
		for _, n := range []uint32{0, 1, 1 << 20, 0xffffffff} {
			t.add(setRing(fd, unix.TPACKET_V3, size, n))
		}
	}
	return t.met()
}

func versionRace(a *attacker) error {
	fd := a.bound()
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i++ {
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, i%3)
		}
	}()
	var t tally
	for range 200 {
		t.add(setRing(fd, unix.TPACKET_V3, 1<<16, 1))
		t.add(setRing(fd, unix.TPACKET_V1, 0, 0))
	}
	stop.Store(true)
	<-done
	return then(t.met(), a.peek(fd))
}

// readDiag asks for what there is (linux/packet_diag.h), and whether filters
// are among it.
func readDiag(a *attacker) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)
	must("netlink", err)
	const sockDiagByFamily, filterAttr, header, fixed = 20, 7, 16, 16
	body := make([]byte, 20)
	body[0] = unix.AF_PACKET
	*(*uint32)(unsafe.Pointer(&body[8])) = 0xff // all that can be shown
	b := append(make([]byte, header), body...)
	*(*unix.NlMsghdr)(unsafe.Pointer(&b[0])) = unix.NlMsghdr{Len: uint32(len(b)), Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP}
	must("send", unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	sockets := 0
	for answer := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(fd, answer, 0)
		must("receive", err)
		a.leaks(bytes.Clone(answer[:n]))
		for rest := answer[:n]; len(rest) >= header; {
			h := (*unix.NlMsghdr)(unsafe.Pointer(&rest[0]))
			switch h.Type {
			case unix.NLMSG_DONE:
				return fmt.Errorf("%d sockets, without their filters", sockets)
			case unix.NLMSG_ERROR:
				return unix.Errno(-*(*int32)(unsafe.Pointer(&rest[header])))
			}
			sockets++
			if hasAttr(rest[header+fixed:h.Len], filterAttr) {
				return nil
			}
			rest = rest[min(int(h.Len+3)&^3, len(rest)):]
		}
	}
}

// hasAttr looks for a netlink attribute that is not empty.
func hasAttr(attrs []byte, typ uint16) bool {
	for len(attrs) >= 4 {
		length, t := *(*uint16)(unsafe.Pointer(&attrs[0])), *(*uint16)(unsafe.Pointer(&attrs[2]))
		if t == typ && length > 4 {
			return true
		}
		attrs = attrs[min(max(4, int(length+3)&^3), len(attrs)):]
	}
	return false
}

func destroySockets(a *attacker) error {
	const sockDestroy = 21
	body := make([]byte, 20)
	body[0] = unix.AF_PACKET
	return netlinkCall(unix.NETLINK_SOCK_DIAG, sockDestroy, 0, body)
}

func readProcNet(a *attacker) error {
	entries, err := os.ReadDir("/proc/self/net")
	must("list", err)
	for _, e := range entries {
		if text, err := os.ReadFile("/proc/self/net/" + e.Name()); err == nil {
			a.leaks(text)
		}
	}
	return fmt.Errorf("%d files, of sockets and counters", len(entries))
}
