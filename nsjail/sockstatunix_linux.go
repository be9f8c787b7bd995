package nsjail

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A unixRequest is struct unix_diag_req (linux/unix_diag.h) for all Unix sockets,
// with their names and peers.
type unixRequest struct{}

const unixRequestLen = 24

func (unixRequest) Len() int { return unixRequestLen }

func (unixRequest) Serialize() []byte {
	b := make([]byte, unixRequestLen)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // udiag_states
	binary.NativeEndian.PutUint32(b[12:], 1|4)       // UDIAG_SHOW_NAME, UDIAG_SHOW_PEER
	return b
}

// unixMessageLen is the size of struct unix_diag_msg, and the others are
// attributes that may follow.
const (
	unixMessageLen = 16
	attrName       = 0 // UNIX_DIAG_NAME: sun_path
	attrPeer       = 2 // UNIX_DIAG_PEER: an inode
)

// A unixSocket is one with the inode of its peer: 0 if it has none, or one that
// has not been accepted yet.
type unixSocket struct {
	found
	peer uint64
}

// dumpUnix speaks with the kernel itself: the library's function for it returns
// names with bytes behind them that do not belong to them (netlink v1.3.1).
func dumpUnix() ([]found, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(unixRequest{})
	msgs, err := req.Execute(unix.NETLINK_SOCK_DIAG, 0)
	if err != nil {
		return nil, err
	}
	var all []unixSocket
	paths := map[uint64]string{}
	for _, m := range msgs {
		s, err := parseUnix(m)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		paths[s.inode] = s.Path
	}
	var list []found
	for _, s := range all {
		if s.peer != 0 {
			s.PeerPath = paths[s.peer]
		}
		list = append(list, s.found)
	}
	return list, nil
}

var unixKinds = map[byte]string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_SEQPACKET: "seqpac"}

// parseUnix reads a struct unix_diag_msg and its attributes.
func parseUnix(m []byte) (unixSocket, error) {
	var s unixSocket
	if len(m) < unixMessageLen {
		return s, fmt.Errorf("the kernel's answer has %d bytes of %d", len(m), unixMessageLen)
	}
	s.Protocol = unixKinds[m[1]]
	s.inode = uint64(binary.NativeEndian.Uint32(m[4:]))
	attrs, err := nl.ParseRouteAttr(m[unixMessageLen:])
	if err != nil {
		return s, err
	}
	for _, a := range attrs {
		switch {
		case a.Attr.Type == attrName:
			s.Path = unixPath(string(a.Value))
		case a.Attr.Type == attrPeer && len(a.Value) == 4:
			s.Paired = true
			s.peer = uint64(binary.NativeEndian.Uint32(a.Value))
		}
	}
	return s, nil
}

// unixPath is the path of a Unix socket. One in the abstract namespace begins
// with a zero (unix(7)), which is shown as @.
func unixPath(name string) string {
	if rest, ok := strings.CutPrefix(name, "\x00"); ok {
		return "@" + printable(rest)
	}
	path, _, _ := strings.Cut(name, "\x00")
	return printable(path)
}
