//go:build amd64 || arm64

package escape

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A way to send a frame on a socket that is bound to an interface.
type way func(fd, ifindex int, frame []byte) error

func sendBound(fd, _ int, frame []byte) error {
	_, err := unix.SendmsgN(fd, frame, nil, nil, unix.MSG_DONTWAIT)
	return err
}

func linkAddr(ifindex int) *unix.SockaddrLinklayer {
	return &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: ifindex, Halen: 6, Addr: [8]byte{2, 0, 10, 0, 0, 2}}
}

func sendTo(fd, ifindex int, frame []byte) error {
	return unix.Sendto(fd, frame, unix.MSG_DONTWAIT, linkAddr(ifindex))
}

func sendControl(fd, ifindex int, frame []byte) error {
	_, err := unix.SendmsgN(fd, frame, control(unix.SO_MARK), linkAddr(ifindex), 0)
	if err != nil {
		_, err = unix.SendmsgN(fd, frame, control(unix.SO_PRIORITY), linkAddr(ifindex), 0)
	}
	return err
}

// control is a control message of SOL_SOCKET with an int.
func control(typ int32) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_SOCKET, typ
	h.SetLen(unix.CmsgLen(4))
	return b
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	sent uint32
	_    uint32
}

func sendMany(fd, _ int, frame []byte) error {
	iov := unix.Iovec{Base: &frame[0], Len: uint64(len(frame))}
	var many [4]mmsghdr
	for i := range many {
		many[i].Iov, many[i].Iovlen = &iov, 1
	}
	_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&many[0])), uintptr(len(many)), unix.MSG_DONTWAIT, 0, 0)
	return orNil(errno)
}

func orNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func write(fd, _ int, frame []byte) error {
	_, err := unix.Write(fd, frame)
	return err
}

func writeParts(fd, _ int, frame []byte) error {
	_, err := unix.Writev(fd, [][]byte{frame[:9], frame[9:]})
	return err
}

func writeAtOffset(fd, _ int, frame []byte) error {
	_, err := unix.Pwritev2(fd, [][]byte{frame}, -1, 0)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, frame, 0)
	return err
}

func splice(fd, _ int, frame []byte) error {
	return throughPipe(fd, func(pipe int) error {
		_, err := unix.Write(pipe, frame)
		return err
	}, len(frame))
}

func vmsplice(fd, _ int, frame []byte) error {
	return throughPipe(fd, func(pipe int) error {
		_, err := unix.Vmsplice(pipe, []unix.Iovec{{Base: &frame[0], Len: uint64(len(frame))}}, unix.SPLICE_F_GIFT)
		return err
	}, len(frame))
}

func throughPipe(fd int, fill func(pipe int) error, n int) error {
	var p [2]int
	must("pipe", unix.Pipe(p[:]))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	must("fill a pipe", fill(p[1]))
	_, err := unix.Splice(p[0], nil, fd, nil, n, unix.SPLICE_F_NONBLOCK)
	return err
}

// inFile is a file with a frame.
func inFile(frame []byte) *os.File {
	fd, err := unix.MemfdCreate("frame", 0)
	must("memfd", err)
	f := os.NewFile(uintptr(fd), "frame")
	_, err = f.Write(frame)
	must("write", err)
	f.Seek(0, io.SeekStart)
	return f
}

func sendfile(fd, _ int, frame []byte) error {
	f := inFile(frame)
	defer f.Close()
	_, err := unix.Sendfile(fd, int(f.Fd()), nil, len(frame))
	return err
}

func copyRange(fd, _ int, frame []byte) error {
	f := inFile(frame)
	defer f.Close()
	_, err := unix.CopyFileRange(int(f.Fd()), nil, fd, nil, len(frame), 0)
	return err
}

func zerocopy(fd, ifindex int, frame []byte) error {
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1)
	return unix.Sendto(fd, frame, unix.MSG_ZEROCOPY|unix.MSG_DONTWAIT, linkAddr(ifindex))
}

// oddFlags are flags of send(2) that are for other protocols, and bits that are
// nobody's.
func oddFlags(fd, ifindex int, frame []byte) error {
	var errs []error
	for bit := range 31 {
		errs = append(errs, unix.Sendto(fd, frame, 1<<bit|unix.MSG_DONTWAIT, linkAddr(ifindex)))
	}
	return firstOf(errs)
}

// firstOf is nil if one of them is.
func firstOf(errs []error) error {
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return errs[0]
}

func connected(fd, ifindex int, frame []byte) error {
	unix.Connect(fd, linkAddr(ifindex))
	unix.Shutdown(fd, unix.SHUT_RD)
	return sendBound(fd, ifindex, frame)
}

// asynchronous uses io_submit(2): struct iocb of linux/aio_abi.h.
func asynchronous(fd, _ int, frame []byte) error {
	var ctx uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&ctx)), 0); errno != 0 {
		return errno
	}
	defer unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0)
	const pwrite = 1
	cb := struct {
		data          uint64
		key, flags    uint32
		opcode        uint16
		prio          int16
		fd            uint32
		buf, n        uint64
		offset        int64
		_             uint64
		flags2, resfd uint32
	}{opcode: pwrite, fd: uint32(fd), buf: address(&frame[0]), n: uint64(len(frame))}
	one := address(&cb)
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, 1, uintptr(unsafe.Pointer(&one))); errno != 0 {
		return errno
	}
	var event struct{ data, obj, res, res2 int64 }
	unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
	if event.res < 0 {
		return unix.Errno(-event.res)
	}
	return nil
}

// byTXRing sends out of a ring that is shared with the kernel (packet(7)):
// struct tpacket_req and tpacket_hdr of linux/if_packet.h.
func byTXRing(fd, ifindex int, frame []byte) error {
	const page = 4096
	req := &unix.TpacketReq{Block_size: page, Block_nr: 1, Frame_size: page, Frame_nr: 1}
	err := setsockopt(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, unsafe.Pointer(req), unsafe.Sizeof(*req))
	return errors.Join(err, fillTXRing(fd, page, frame))
}

func fillTXRing(fd, size int, frame []byte) error {
	ring, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(ring)
	h := (*unix.TpacketHdr)(unsafe.Pointer(&ring[0]))
	copy(ring[unix.TPACKET_HDRLEN-int(unsafe.Sizeof(unix.RawSockaddrLinklayer{})):], frame)
	h.Len, h.Status = uint32(len(frame)), unix.TP_STATUS_SEND_REQUEST
	return orNil(sendNothing(fd))
}

// sendNothing kicks a ring.
func sendNothing(fd int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// pastQdisc sends where the guard on sending would not see it.
func pastQdisc(fd, ifindex int, frame []byte) error {
	err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	if err2 := sendBound(fd, ifindex, frame); err == nil {
		err = err2
	}
	return err
}

// withVnetHeader puts a struct virtio_net_hdr in front.
func withVnetHeader(fd, ifindex int, frame []byte) error {
	err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	if err2 := sendBound(fd, ifindex, append(make([]byte, 10), frame...)); err == nil {
		err = err2
	}
	return err
}

func setsockopt(fd, level, option int, value unsafe.Pointer, length uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(value), length, 0)
	return orNil(errno)
}
