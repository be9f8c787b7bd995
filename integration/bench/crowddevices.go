//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// joinDevices makes a tap device for each capture, with its socket, and a program on the
// interface that sends copies there.
func joinDevices(l lab, ifname string, n int) (_ func() error, err error) {
	var objs designsObjects
	if err := loadDesignsObjects(&objs, nil); err != nil {
		return nil, err
	}
	var links []link.Link
	var fds []int
	closeAll := func() error {
		var errs []error
		for _, l := range links {
			errs = append(errs, l.Close())
		}
		return errors.Join(append(errs, objs.Close(), throttled(len(fds), func(i int) error { return unix.Close(fds[i]) }))...)
	}
	err = l.to.Do(func() error {
		for i := range n {
			name := fmt.Sprintf("%s-%d", ifname, i)
			device, err := tapDevice(name)
			if err != nil {
				return err
			}
			fds = append(fds, device)
			socket, err := memberSocket(name, i)
			if err != nil {
				return err
			}
			fds = append(fds, socket)
			on, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			if err := objs.Places.Put(member(i).AsSlice(), uint32(on.Index)); err != nil {
				return err
			}
		}
		on, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		for _, way := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			l, err := link.AttachTCX(link.TCXOptions{Program: objs.Copy, Interface: on.Index, Attach: way})
			if err != nil {
				return err
			}
			links = append(links, l)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return closeAll, nil
}

// tapDevice makes a tap device that is up, for as long as its descriptor is open.
func tapDevice(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = bringUp(name)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("tap device %s: %w", name, err)
	}
	return fd, nil
}

func bringUp(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
