package nsjail

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// inetProtocols are those of IPv4 and IPv6 and how their sockets are found.
var inetProtocols = []struct {
	name string
	dump func() ([]found, error)
}{
	{"tcp", func() ([]found, error) { return dumpInet(unix.IPPROTO_TCP) }},
	{"udp", func() ([]found, error) { return dumpInet(unix.IPPROTO_UDP) }},
	{"raw", dumpRaw},
}

// A found socket is one without its process, which has the inode open.
type found struct {
	Socket
	inode uint64
}

func sockets(q SocketQuery) ([]Socket, error) {
	var all []found
	dump := func() (err error) {
		all, err = dumpSockets(q)
		return err
	}
	err := error(nil)
	if q.Namespace != nil {
		err = q.Namespace.Do(dump)
	} else {
		err = dump()
	}
	if err != nil {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	list := held(all, q.Process)
	sortSockets(list)
	return list, nil
}

func dumpSockets(q SocketQuery) ([]found, error) {
	var all []found
	for _, p := range inetProtocols {
		if len(q.Protocols) > 0 && !slices.Contains(q.Protocols, p.name) {
			continue
		}
		list, err := p.dump()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		for _, s := range list {
			if s.Protocol = p.name; s.IPv4 && q.IPv4 || s.IPv6 && q.IPv6 {
				all = append(all, s)
			}
		}
	}
	if !q.Unix {
		return all, nil
	}
	list, err := dumpUnix()
	if err != nil {
		return nil, fmt.Errorf("unix: %w", err)
	}
	return append(all, list...), nil
}

// An inetRequest is struct inet_diag_req_v2 (linux/inet_diag.h) for all sockets
// of a family and a protocol, in any state.
type inetRequest struct{ family, protocol uint8 }

const inetRequestLen = 56

func (r inetRequest) Len() int { return inetRequestLen }

func (r inetRequest) Serialize() []byte {
	b := make([]byte, inetRequestLen)
	b[0], b[1] = r.family, r.protocol
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // idiag_states
	return b
}

// dumpInet asks for sockets of both families: those of IPv6 may have IPv4
// addresses.
func dumpInet(protocol uint8) ([]found, error) {
	var all []found
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		req.AddData(inetRequest{family, protocol})
		msgs, err := req.Execute(unix.NETLINK_SOCK_DIAG, 0)
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			s, err := parseInet(m)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// inetMessageLen is the size of struct inet_diag_msg (linux/inet_diag.h), and
// attrV6Only an attribute that may follow.
const (
	inetMessageLen = 72
	attrV6Only     = 11 // INET_DIAG_SKV6ONLY
)

// parseInet reads a struct inet_diag_msg. Ports and addresses are in network
// order, the rest in the computer's.
func parseInet(m []byte) (found, error) {
	if len(m) < inetMessageLen {
		return found{}, fmt.Errorf("the kernel's answer has %d bytes of %d", len(m), inetMessageLen)
	}
	v6 := m[0] == unix.AF_INET6
	s := found{inode: uint64(binary.NativeEndian.Uint32(m[68:]))}
	s.Local = netip.AddrPortFrom(inetAddr(m[8:24], v6), binary.BigEndian.Uint16(m[4:]))
	s.Remote = netip.AddrPortFrom(inetAddr(m[24:40], v6), binary.BigEndian.Uint16(m[6:]))
	s.IPv4 = s.Local.Addr().Is4()
	s.IPv6 = !s.IPv4
	if v6 && s.Local.Addr().IsUnspecified() && s.Remote.Port() == 0 {
		s.IPv4 = s.IPv4 || hearsIPv4(m[inetMessageLen:])
	}
	return s, nil
}

// inetAddr is an address; one of IPv4 that an IPv6 socket has is of IPv4.
func inetAddr(b []byte, v6 bool) netip.Addr {
	if !v6 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

// hearsIPv4 reports whether an IPv6 socket takes IPv4 as well (ipv6(7)):
// its IPV6_V6ONLY is off.
func hearsIPv4(attributes []byte) bool {
	attrs, err := nl.ParseRouteAttr(attributes)
	return err == nil && slices.ContainsFunc(attrs, func(a syscall.NetlinkRouteAttr) bool {
		return a.Attr.Type == attrV6Only && len(a.Value) > 0 && a.Value[0] == 0
	})
}

// A holder is a process and its number for a file.
type holder struct {
	pid, fd, uid int
	command      string
}

// held gives each socket the processes that have it open.
func held(all []found, wanted func(int) bool) []Socket {
	holders := socketHolders(wanted)
	var list []Socket
	for _, s := range all {
		s.UID, s.FD = -1, -1
		of := holders[s.inode]
		for _, h := range of {
			s.UID, s.PID, s.FD, s.Command = h.uid, h.pid, h.fd, h.command
			list = append(list, s.Socket)
		}
		if len(of) == 0 && wanted == nil {
			list = append(list, s.Socket)
		}
	}
	return list
}

// socketHolders are all processes with sockets open, by the socket's inode,
// which no two sockets of a kernel share.
func socketHolders(wanted func(int) bool) map[uint64][]holder {
	holders := map[uint64][]holder{}
	for _, pid := range processes() {
		if wanted != nil && !wanted(pid) {
			continue
		}
		dir := filepath.Join(processDir(pid), "fd")
		entries, err := os.ReadDir(dir)
		if err != nil { // it has ended, or belongs to somebody else
			continue
		}
		var h holder
		for _, e := range entries {
			inode, ok := socketInode(filepath.Join(dir, e.Name()))
			if !ok {
				continue
			}
			if h.pid == 0 {
				h = holderOf(pid)
			}
			h.fd, _ = strconv.Atoi(e.Name())
			holders[inode] = append(holders[inode], h)
		}
	}
	return holders
}

// socketInode is the inode of the socket that a link in /proc/PID/fd is of.
func socketInode(link string) (uint64, bool) {
	target, err := os.Readlink(link)
	text, ok := strings.CutPrefix(target, "socket:[")
	if err != nil || !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
	return inode, err == nil
}

func holderOf(pid int) holder {
	h := holder{pid: pid, uid: -1}
	if comm, err := os.ReadFile(filepath.Join(processDir(pid), "comm")); err == nil {
		h.command = printable(strings.TrimSuffix(string(comm), "\n"))
	}
	var st unix.Stat_t
	if unix.Stat(processDir(pid), &st) == nil { // proc(5): its owner is the effective user
		h.uid = int(st.Uid)
	}
	return h
}
