//go:build linux

package main

import (
	"net"

	"golang.org/x/sys/unix"

	"jailtap/internal/netlab"
)

// A sender puts frames out of one interface.
type sender struct{ fd int }

func newSender(n *netlab.Namespace, ifname string) (*sender, error) {
	s := &sender{}
	err := n.Do(func() (err error) {
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return bindTo(s.fd, ifname, 0)
	})
	return s, err
}

// frames sends the same frame so many times.
func (s *sender) frames(frame []byte, times int) error {
	for range times {
		if _, err := unix.Write(s.fd, frame); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) close() { unix.Close(s.fd) }

// bindTo binds a packet socket to an interface of the calling thread's
// namespace. Frames of the protocol, an ETH_P_ value, arrive from then on; 0 is
// none.
func bindTo(fd int, ifname string, protocol uint16) error {
	link, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	return bindToIndex(fd, link.Index, protocol)
}

func bindToIndex(fd, ifindex int, protocol uint16) error {
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: ifindex})
}
