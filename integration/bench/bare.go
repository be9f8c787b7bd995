//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// A bare capture is made of the system calls that no capture can do without.
type bare struct {
	fd  int
	mem []byte
}

// bareParts are the filter of captures, as jailtap has it, and the number of their interface.
func (cfg setupConfig) bareParts() (filter bpf.Program, ifindex int, err error) {
	user := bpf.Program{{Op: retK, K: bpf.KeepAll}}
	if filter, err = bpf.Compile(captureScope(), bpf.View{LinkType: bpf.Ethernet, Live: true}, bpf.Linux, user); err != nil {
		return nil, 0, err
	}
	on, err := net.InterfaceByName(cfg.Interface)
	if err != nil {
		return nil, 0, err
	}
	return filter, on.Index, nil
}

func bareCapture(k setupKind, filter bpf.Program, ifindex int) (_ capture, err error) {
	b := &bare{}
	if b.fd, err = bareRing(k, filter); err != nil {
		return nil, err
	}
	if err = b.mapRing(k); err == nil {
		err = bindToIndex(b.fd, ifindex, unix.ETH_P_ALL)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// bareRing is a socket with its filter and its ring.
func bareRing(k setupKind, filter bpf.Program) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	const frame = 2048
	req := unix.TpacketReq3{
		Block_size: uint32(k.block), Block_nr: uint32(k.ring / k.block), Frame_size: frame, Frame_nr: uint32(k.ring / frame),
		Retire_blk_tov: uint32(k.timeoutMillis),
	}
	if err = attachFilter(fd, filter); err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3)
	}
	if err == nil {
		err = unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (b *bare) mapRing(k setupKind) (err error) {
	b.mem, err = unix.Mmap(b.fd, 0, k.ring, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

// first waits for the first block, and looks at the length of the first packet in it
// (struct tpacket_block_desc and tpacket3_hdr of linux/if_packet.h).
func (b *bare) first() error {
	word := func(off uint32) uint32 { return atomic.LoadUint32((*uint32)(unsafe.Pointer(&b.mem[off]))) }
	const status, offsetToFirst, capturedLength = 8, 16, 12
	for word(status)&unix.TP_STATUS_USER == 0 {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLIN}}, -1); err != nil && err != unix.EINTR {
			return err
		}
	}
	if n := word(word(offsetToFirst) + capturedLength); n != uint32(len(captureFrame(64))) {
		return fmt.Errorf("a packet of %d bytes", n)
	}
	return nil
}

func (b *bare) close() error {
	var err error
	if b.mem != nil {
		err = unix.Munmap(b.mem)
	}
	return errors.Join(err, unix.Close(b.fd))
}
