package loader

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// socket finds the interface and makes a packet socket for it, both in ns. What
// is done with the socket later happens in ns too, wherever it is called from.
func socket(ns Namespace, name string) (l link, fd int, err error) {
	fd = -1
	err = within(ns, func() (err error) {
		l, fd, err = socketHere(name)
		return err
	})
	return l, fd, err
}

// socketHere is socket in the namespace of the calling thread.
func socketHere(name string) (l link, fd int, err error) {
	// Any socket will do to ask about an interface, and most are Ethernet.
	expected := bpf.Ethernet
	if name == Any {
		expected = bpf.LinuxSLL2
	}
	if fd, err = packetSocket(expected); err != nil {
		return l, -1, err
	}
	if l, err = findWith(fd, name); err == nil && (l.typ == bpf.Ethernet) == (expected == bpf.Ethernet) {
		return l, fd, nil
	}
	go unix.Close(fd) // waits for a grace period, and needs nobody who waits for it
	if err != nil {
		return l, -1, err
	}
	fd, err = packetSocket(l.typ)
	return l, fd, err
}

// within does something in a namespace; nil is the caller's.
func within(ns Namespace, do func() error) error {
	if ns == nil {
		return do()
	}
	return ns.Do(do)
}

// packetSocket makes a socket that gets no packets yet. Only Ethernet frames
// begin at the link header. For the other link types it is a SOCK_DGRAM
// socket, where they begin at the network header, whatever the device has
// before that.
func packetSocket(lt bpf.LinkType) (int, error) {
	kind := unix.SOCK_DGRAM
	if lt == bpf.Ethernet {
		kind = unix.SOCK_RAW
	}
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return -1, &PrivilegeError{Op: "open a packet socket", Capability: "CAP_NET_RAW", Err: err}
	case errors.Is(err, unix.EAFNOSUPPORT):
		return -1, fmt.Errorf("the kernel lacks packet sockets (CONFIG_PACKET), or a sandbox hides them: %w", err)
	}
	return -1, fmt.Errorf("open a packet socket: %w", err)
}

// findWith looks an interface up in the namespace of a socket.
func findWith(fd int, name string) (link, error) {
	if name == Any {
		return link{name: name, typ: bpf.LinuxSLL2}, nil
	}
	ifr, err := unix.NewIfreq(name)       // fails for a name that is too long
	if err == nil && ifr.Name() != name { // it ends at a NUL
		err = unix.ENODEV
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return link{}, &InterfaceError{Name: name, Known: interfaces(), Err: err}
	}
	l := link{name: name, index: int(ifr.Uint32())}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFHWADDR, ifr); err != nil {
		return link{}, fmt.Errorf("look up interface %s: %w", name, err)
	}
	hatype := ifr.Uint16() // sa_family of ifr_hwaddr; netdevice(7)
	l.typ, l.loopback = linkType(hatype), hatype == unix.ARPHRD_LOOPBACK
	return l, nil
}

// linkType is how frames of a kind of device (ARPHRD_* of linux/if_arp.h) are
// captured. What is not known here is captured cooked, which holds for all.
func linkType(hatype uint16) bpf.LinkType {
	switch hatype {
	case unix.ARPHRD_ETHER, unix.ARPHRD_LOOPBACK:
		return bpf.Ethernet
	case unix.ARPHRD_NONE, unix.ARPHRD_RAWIP, unix.ARPHRD_TUNNEL, unix.ARPHRD_TUNNEL6, unix.ARPHRD_SIT:
		return bpf.Raw
	}
	return bpf.LinuxSLL2
}

// exists reports whether there still is an interface of that number in the
// namespace of the socket. One that is being removed is down before it is gone;
// asking for its driver waits until the removal is over (dev_ethtool in
// net/ethtool/ioctl.c takes the lock that it holds).
func exists(fd int, l link) bool {
	unix.IoctlGetEthtoolDrvinfo(fd, l.name)
	ifr, _ := unix.NewIfreq("")
	ifr.SetUint32(uint32(l.index))
	return unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr) == nil
}
