//go:build amd64 || arm64

package escape

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// opening are ways to come to frames past captive sockets.
var opening = []attempt{
	{name: "AF_PACKET, SOCK_RAW, all protocols", how: "socket(2), then everything that a packet socket can do", in: []setting{run}, control: true,
		do: openAndAbuse(unix.AF_PACKET, unix.SOCK_RAW, int(networkOrder(unix.ETH_P_ALL)))},
	{name: "AF_PACKET, SOCK_DGRAM", how: "the same without link-level headers", in: []setting{run}, control: true,
		do: openAndAbuse(unix.AF_PACKET, unix.SOCK_DGRAM, int(networkOrder(unix.ETH_P_ALL)))},
	{name: "AF_PACKET, SOCK_PACKET", how: "the type of Linux 2.0, which has a receive path of its own", in: []setting{run, held},
		do: openAndAbuse(unix.AF_PACKET, unix.SOCK_PACKET, int(networkOrder(unix.ETH_P_ALL)))},
	{name: "AF_INET, SOCK_PACKET", how: "which the kernel takes for AF_PACKET (net/socket.c)", in: both,
		do: openAndAbuse(unix.AF_INET, unix.SOCK_PACKET, int(networkOrder(unix.ETH_P_ALL)))},
	{name: "AF_PACKET with bits above 32", how: "the filter and the kernel may read the argument differently", in: []setting{run}, do: openWithHighBits},
	{name: "AF_PACKET by io_uring", how: "IORING_OP_SOCKET, which seccomp does not see", in: both, control: true, do: openByUring},
	{name: "every family with every type", how: "all that can be opened is told to show frames", in: both, do: openEverything},
	{name: "AF_XDP", how: "a socket that takes frames before the stack", in: both, do: openAndPeek(unix.AF_XDP, unix.SOCK_RAW, 0)},
	{name: "raw IPv4", how: "SOCK_RAW of every protocol", in: both, control: true, do: openRaw(unix.AF_INET)},
	{name: "raw IPv6", how: "SOCK_RAW of every protocol", in: both, do: openRaw(unix.AF_INET6)},
	{name: "ping sockets", how: "SOCK_DGRAM of ICMP, as far as ping_group_range has it, with another's address", in: both, do: openPing},
	{name: "another's address on a UDP socket", how: "IP_TRANSPARENT, IP_FREEBIND and bind(2)", in: both, do: transparent},
	{name: "NFLOG", how: "bind a netlink socket to groups of logged packets", in: both, do: bindNetfilter(4<<8|1, 1)},
	{name: "nfqueue", how: "bind a netlink socket to queues of packets", in: both, do: bindNetfilter(3<<8|2, 1)},
	{name: "netfilter's rules", how: "delete a table of nftables: an unlocked egress guard would be gone", in: both, do: deleteTable},
	{name: "rtnetlink: promiscuous", how: "RTM_NEWLINK that sets IFF_PROMISC", in: both, do: setPromiscuous},
	{name: "rtnetlink: mirror", how: "RTM_NEWQDISC with clsact, to mirror frames from there", in: both, do: addQdisc},
	{name: "generic netlink: psample, drop monitor", how: "join the multicast groups that get packets", in: both, do: joinSamples},
	{name: "attach to tun0", how: "TUNSETIFF: whoever has the other end reads all", in: both, do: attachTun},
	{name: "eBPF: load", how: "bpf(2): programs of the types that see frames", in: both, do: loadPrograms},
	{name: "eBPF: others' objects", how: "bpf(2): programs, maps and links by their numbers and pins", in: both, do: othersObjects},
	{name: "perf_event_open, tracing", how: "trace points and functions of the network stack", in: both, do: trace},
	{name: "memory of the kernel", how: "/dev/mem, /proc/kcore, /dev/kmsg, debugfs", in: both, do: readMemory},
	{name: "set-user-ID and file capabilities", how: "execute a copy of this program that has CAP_NET_RAW", in: []setting{run}, do: executePrivileged},
	{name: "the operator's descriptors", how: "all that are open at the start", in: []setting{run}, do: inherited},
}

func openAndAbuse(family, typ, protocol int) func(*attacker) error {
	return func(a *attacker) error {
		fd, err := unix.Socket(family, typ, protocol)
		if err != nil {
			return err
		}
		return a.abuse(fd)
	}
}

func openAndPeek(family, typ, protocol int) func(*attacker) error {
	return func(a *attacker) error {
		fd, err := unix.Socket(family, typ, protocol)
		if err != nil {
			return err
		}
		return a.peek(fd)
	}
}

func openWithHighBits(a *attacker) error {
	var t tally
	for bit := 32; bit < 64; bit++ {
		fd, _, errno := unix.Syscall(unix.SYS_SOCKET, 1<<bit|unix.AF_PACKET, 1<<bit|unix.SOCK_RAW, 1<<bit|uintptr(networkOrder(unix.ETH_P_ALL)))
		if t.add(orNil(errno)); errno == 0 {
			t.add(a.abuse(int(fd)))
			unix.Close(int(fd))
		}
	}
	return t.met()
}

func openByUring(a *attacker) error {
	fd, err := uringSocket(unix.AF_PACKET, unix.SOCK_RAW, int(networkOrder(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	return a.abuse(fd)
}

func openEverything(a *attacker) error {
	var t tally
	for family := range 64 {
		for typ := range 12 {
			fd, err := unix.Socket(family, typ, 0)
			if t.add(err); err == nil {
				if own, foreign := 0, 0; family == unix.AF_PACKET {
					a.abuse(fd)
				} else if own, foreign = a.glance(fd); own+foreign > 0 {
					return nil
				}
				unix.Close(fd)
			}
		}
	}
	return t.met()
}

// glance takes what is there at once.
func (a *attacker) glance(fd int) (own, foreign int) {
	unix.SetNonblock(fd, true)
	return a.watch(fd, 0)
}

func openRaw(family int) func(*attacker) error {
	return func(a *attacker) error {
		var t tally
		for protocol := range 256 {
			fd, err := unix.Socket(family, unix.SOCK_RAW, protocol)
			if t.add(err); err == nil {
				header := udp(jail4, far4, a.marker)[14:]
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_HDRINCL, 1)
				t.add(unix.Sendto(fd, header, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 0, 9, 2}}))
				unix.Close(fd)
			}
		}
		return t.refused()
	}
}

func openPing(a *attacker) error {
	var t tally
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []int{unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
			fd, err := unix.Socket(family, unix.SOCK_DGRAM, protocol)
			if t.add(err); err == nil {
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_HDRINCL, 1)
				t.add(unix.Bind(fd, &unix.SockaddrInet4{Addr: far4.As4()}))
				t.add(a.peek(fd))
				unix.Close(fd)
			}
		}
	}
	return t.refused()
}

func transparent(a *attacker) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must("UDP", err)
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
	var t tally
	t.add(said("IP_TRANSPARENT", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)))
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: neighbour4.As4(), Port: 5000})
	if t.add(said("bind", err)); err == nil {
		t.add(said("send", unix.Sendto(fd, []byte(a.marker), 0, &unix.SockaddrInet4{Addr: [4]byte{10, 0, 9, 2}, Port: 9})))
	}
	return then(t.met(), a.peek(fd))
}

// netlinkCall sends one message and returns the error in the answer.
func netlinkCall(protocol int, typ, flags uint16, body []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return netlinkAsk(fd, typ, flags, body)
}

func netlinkAsk(fd int, typ, flags uint16, body []byte) error {
	const header = 16
	b := make([]byte, header, header+len(body))
	h := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
	*h = unix.NlMsghdr{Len: uint32(header + len(body)), Type: typ, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, Seq: 1}
	if err := unix.Sendto(fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 1<<14)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < header+4 {
		return err
	}
	if (*unix.NlMsghdr)(unsafe.Pointer(&answer[0])).Type != unix.NLMSG_ERROR {
		return nil
	}
	return orNil(unix.Errno(-*(*int32)(unsafe.Pointer(&answer[header]))))
}

// bindNetfilter sends a configuration message with the command BIND and one
// with PF_BIND (linux/netfilter/nfnetlink_log.h, nfnetlink_queue.h).
func bindNetfilter(typ uint16, attribute byte) func(*attacker) error {
	return func(a *attacker) error {
		var t tally
		for command := range byte(5) {
			body := []byte{unix.AF_INET, 0, 0, 1, 8, 0, attribute, 0, command, 0, 0, unix.AF_INET}
			t.add(netlinkCall(unix.NETLINK_NETFILTER, typ, 0, body))
		}
		return t.refused()
	}
}

func deleteTable(a *attacker) error {
	// A batch: begin, NFT_MSG_DELTABLE of family netdev without a name (all), end.
	// Outside of a batch it is no call at all.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	must("netlink", err)
	message := func(typ, flags uint16, body ...byte) []byte {
		b := make([]byte, 16)
		*(*unix.NlMsghdr)(unsafe.Pointer(&b[0])) = unix.NlMsghdr{Len: uint32(16 + len(body)), Type: typ, Flags: unix.NLM_F_REQUEST | flags, Seq: 1}
		return append(b, body...)
	}
	const batchBegin, batchEnd, delTable, netdev = 16, 17, 10<<8 | 2, 5
	batch := append(message(batchBegin, 0, 0, 0, 0, 10), message(delTable, unix.NLM_F_ACK, netdev, 0, 0, 0)...)
	batch = append(batch, message(batchEnd, 0, 0, 0, 0, 10)...)
	must("send", unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		broken("no answer: %v", err)
	}
	return orNil(unix.Errno(-*(*int32)(unsafe.Pointer(&answer[16]))))
}

func setPromiscuous(a *attacker) error {
	m := unix.IfInfomsg{Index: int32(index("eth0")), Flags: unix.IFF_PROMISC, Change: unix.IFF_PROMISC}
	return netlinkCall(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, 0, bytesOf(&m))
}

func bytesOf[T any](p *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p)) }

func addQdisc(a *attacker) error {
	// struct tcmsg of linux/rtnetlink.h, TC_H_CLSACT, and TCA_KIND.
	m := struct {
		family         uint8
		_              [3]byte
		ifindex        int32
		handle, parent uint32
		info           uint32
	}{ifindex: int32(index("eth0")), handle: 0xffff0000, parent: 0xfffffff1}
	kind := append([]byte{11, 0, 1, 0}, "clsact\x00\x00"...)
	return netlinkCall(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC, unix.NLM_F_CREATE, append(bytesOf(&m), kind...))
}

func joinSamples(a *attacker) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC)
	must("netlink", err)
	for group := range 64 { // whichever numbers these families have here
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	}
	const netDM, configure, start = 0, 2, 3
	var t tally
	for family := uint16(0x10); family < 0x40; family++ {
		if genericName(family) == "NET_DM" {
			t.add(netlinkCall(unix.NETLINK_GENERIC, family, 0, []byte{start, 0, 0, 0}))
		}
	}
	t.add(a.peek(fd))
	return t.refused()
}

// genericName asks the controller of generic netlink for a family's name.
func genericName(family uint16) string {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC)
	must("netlink", err)
	defer unix.Close(fd)
	b := make([]byte, 28)
	*(*unix.NlMsghdr)(unsafe.Pointer(&b[0])) = unix.NlMsghdr{Len: 28, Type: unix.GENL_ID_CTRL, Flags: unix.NLM_F_REQUEST}
	copy(b[16:], []byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0, 6, 0, unix.CTRL_ATTR_FAMILY_ID, 0, byte(family), byte(family >> 8)})
	must("send", unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	answer := make([]byte, 1<<14)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || !strings.Contains(string(answer[:n]), "NET_DM") {
		return ""
	}
	return "NET_DM"
}

func attachTun(a *attacker) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq("tun0")
	must("name", err)
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// bpfCall is bpf(2).
func bpfCall(command int, attr []byte) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	return int(fd), orNil(errno)
}

// loadProgram loads `return -1`. The names are those of union bpf_attr.
func loadProgram(typ uint32) (int, error) {
	insns := []uint64{0xffffffff_000000b7, 0x95} // r0 = -1; exit
	license := []byte("GPL\x00")
	attr := struct {
		typ, count     uint32
		insns, license uint64
		_              [96]byte
	}{typ: typ, count: uint32(len(insns)), insns: address(&insns[0]), license: address(&license[0])}
	return bpfCall(unix.BPF_PROG_LOAD, bytesOf(&attr))
}

func loadPrograms(a *attacker) error {
	var t tally
	for typ := uint32(1); typ <= 32; typ++ {
		fd, err := loadProgram(typ)
		if t.add(err); err == nil {
			t.add(unix.SetsockoptInt(a.bound(), unix.SOL_SOCKET, unix.SO_ATTACH_BPF, fd))
		}
	}
	return t.refused()
}

func othersObjects(a *attacker) error {
	var t tally
	for _, command := range []int{unix.BPF_PROG_GET_FD_BY_ID, unix.BPF_MAP_GET_FD_BY_ID, unix.BPF_LINK_GET_FD_BY_ID, unix.BPF_BTF_GET_FD_BY_ID} {
		for id := range uint32(4000) {
			attr := [4]uint32{id}
			_, err := bpfCall(command, bytesOf(&attr))
			t.add(err)
		}
	}
	for _, dir := range []string{"/sys/fs/bpf/jailtap", "/sys/fs/bpf"} {
		pins, err := filepath.Glob(dir + "/*")
		if t.add(errors.Join(err, readable(dir))); len(pins) > 0 {
			t.add(os.Remove(pins[0]))
		}
	}
	path := []byte("/sys/fs/bpf/jailtap/captives\x00")
	attr := [4]uint64{address(&path[0])}
	_, err := bpfCall(unix.BPF_OBJ_GET, bytesOf(&attr))
	t.add(err)
	return t.refused()
}

// readable is nil for a directory of ours only.
func readable(dir string) error {
	_, err := os.ReadDir(dir)
	if err != nil {
		return errors.Unwrap(err)
	}
	return errors.New("listed")
}

func trace(a *attacker) error {
	var t tally
	for _, attr := range []unix.PerfEventAttr{
		{Type: unix.PERF_TYPE_TRACEPOINT, Config: 1},
		{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_BPF_OUTPUT, Sample_type: unix.PERF_SAMPLE_RAW},
	} {
		attr.Size = uint32(unsafe.Sizeof(attr))
		_, err := unix.PerfEventOpen(&attr, -1, 0, -1, 0)
		t.add(err)
	}
	for _, path := range []string{"/sys/kernel/tracing/trace_pipe", "/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/trace"} {
		_, err := unix.Open(path, unix.O_RDONLY, 0)
		t.add(err)
	}
	return t.refused()
}

func readMemory(a *attacker) error {
	var t tally
	for _, path := range []string{"/dev/mem", "/dev/kmem", "/proc/kcore", "/sys/kernel/debug", "/dev/port", "/sys/kernel/debug/usb/usbmon/0u", "/dev/usbmon0", "/dev/vhost-net"} {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err == nil {
			_, err = unix.Read(fd, make([]byte, 16))
		}
		t.add(err)
	}
	return t.refused()
}

// executePrivileged executes what the world has given privileges.
func executePrivileged(a *attacker) error {
	if a.stage != "" {
		fd, err := uringSocket(unix.AF_PACKET, unix.SOCK_RAW, int(networkOrder(unix.ETH_P_ALL)))
		if err != nil {
			return fmt.Errorf("user %d: %w", os.Geteuid(), err)
		}
		return a.abuse(fd)
	}
	var t tally
	for _, kind := range []string{"setuid", "capable"} {
		cmd := exec.Command(a.ask("privileged", kind))
		cmd.Env = append(os.Environ(), envStage+"=privileged")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		t.add(said(kind, underlying(cmd.Run())))
	}
	return t.met()
}

// inherited reads what is open. The operator has left a file open for jailtap.
func inherited(a *attacker) error {
	var t tally
	for fd := 3; fd < 256; fd++ {
		content := make([]byte, 4096)
		n, err := unix.Pread(fd, content, 0)
		if t.add(err); err == nil {
			a.leaks(content[:n])
		}
	}
	return t.met()
}
