package nsjail

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// dumpRaw reads raw sockets from proc_net(5), of the namespace of the calling
// thread: most kernels are built without socket diagnostics for them
// (CONFIG_INET_RAW_DIAG).
func dumpRaw() ([]found, error) {
	var all []found
	for _, file := range []string{"raw", "raw6"} {
		text, err := os.ReadFile(procDir + "/thread-self/net/" + file)
		if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return nil, err
		}
		_, lines, _ := strings.Cut(string(text), "\n") // the heading
		for line := range strings.Lines(lines) {
			s, err := parseRaw(line)
			if err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// parseRaw reads a line: a number, local and remote address, state, queues,
// timer, retransmits, uid, timeout, and the inode.
func parseRaw(line string) (found, error) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return found{}, fmt.Errorf("unknown form of /proc/net/raw: %q", line)
	}
	local, err1 := hexAddrPort(fields[1])
	remote, err2 := hexAddrPort(fields[2])
	inode, err3 := strconv.ParseUint(fields[9], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return found{}, fmt.Errorf("unknown form of /proc/net/raw: %q: %w", line, err)
	}
	s := found{inode: inode}
	s.Protocol, s.Local, s.Remote = "raw", local, remote
	s.IPv4, s.IPv6 = local.Addr().Is4(), local.Addr().Is6()
	return s, nil
}

// hexAddrPort reads an address, whose 32-bit words are in the computer's order,
// and a port.
func hexAddrPort(text string) (netip.AddrPort, error) {
	addr, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(addr)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err := errors.Join(err, err2); err != nil {
		return netip.AddrPort{}, err
	}
	if len(b)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("bad address %q", addr)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("bad address %q", addr)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}
