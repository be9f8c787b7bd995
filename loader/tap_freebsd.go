//go:build amd64 || arm64 || riscv64

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

type conn = bpfConn

func open(cfg Config) (*Tap, error) {
	if err := bpfHas(cfg); err != nil {
		return nil, err
	}
	dev, err := openDevBPF()
	if err != nil {
		return nil, err
	}
	t := &Tap{engine: CBPF, reason: "what bpf(4) has"}
	t.dev = dev
	if t.link, err = t.setUp(cfg); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

const devBPFPath = "/dev/bpf" // each open is a device of its own; bpf(4)

type devBPF struct {
	fd         int
	waker, end int // a pipe that ends a poll
}

// openDevBPF opens for reading, which is enough for everything but sending. It
// does not block: the mode cannot be changed once the device is locked.
func openDevBPF() (*devBPF, error) {
	fd, err := unix.Open(devBPFPath, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, &PrivilegeError{Op: "open " + devBPFPath, Err: err}
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open %s: %w: in a jail, devfs.rules(5) must unhide bpf", devBPFPath, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", devBPFPath, err)
	}
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	return &devBPF{fd: fd, end: pipe[0], waker: pipe[1]}, nil
}

// ioctl is ioctl(2) with a pointer for its argument.
func (d *devBPF) ioctl(r uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), uintptr(r), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

var requests = map[request]uint{
	setBufferLength:  unix.BIOCSBLEN,
	setFilter:        unix.BIOCSETF,
	setFilterNoFlush: unix.BIOCSETFNR,
	setWriteFilter:   unix.BIOCSETWF,
	setStampFormat:   unix.BIOCSTSTAMP,
	setDirection:     unix.BIOCSDIRECTION,
	setImmediate:     unix.BIOCIMMEDIATE,
	setPromiscuous:   unix.BIOCPROMISC,
	getLinkType:      unix.BIOCGDLT,
	lock:             unix.BIOCLOCK,
}

func (d *devBPF) number(r request, n uint32) (uint32, error) {
	err := d.ioctl(requests[r], unsafe.Pointer(&n))
	return n, err
}

func (d *devBPF) program(r request, p bpf.Program) error {
	insns := make([]unix.BpfInsn, len(p))
	for i, in := range p {
		insns[i] = unix.BpfInsn{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	// No program would be one that accepts everything.
	arg := unix.BpfProgram{Len: uint32(len(insns)), Insns: &insns[0]}
	return d.ioctl(requests[r], unsafe.Pointer(&arg))
}

// ifreq is struct ifreq of net/if.h.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	value [16]byte // a union
}

func (d *devBPF) attach(ifname string) (index int, err error) {
	var arg ifreq
	if len(ifname) >= len(arg.name) { // would be cut to another name
		return 0, unix.ENXIO
	}
	copy(arg.name[:], ifname)
	if err := d.ioctl(unix.BIOCSETIF, unsafe.Pointer(&arg)); err != nil {
		return 0, err
	}
	if i, err := net.InterfaceByName(ifname); err == nil {
		index = i.Index // else it is gone again, and reading will tell
	}
	return index, nil
}

func (d *devBPF) counts() (received, dropped uint32, err error) {
	var arg unix.BpfStat
	err = d.ioctl(unix.BIOCGSTATS, unsafe.Pointer(&arg))
	return arg.Recv, arg.Drop, err
}

func (d *devBPF) read(b []byte) (n int, err error) {
	for {
		if n, err = unix.Read(d.fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

// wait uses poll(2), since Go's os.File has no deadlines for this device.
func (d *devBPF) wait(limit time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.end), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int(limit.Milliseconds())); err != nil && err != unix.EINTR {
		return err
	}
	if fds[1].Revents != 0 {
		var woken [16]byte
		unix.Read(d.end, woken[:])
	}
	return nil
}

// wake does not mind a full pipe: that wakes too.
func (d *devBPF) wake() { unix.Write(d.waker, []byte{0}) }

func (d *devBPF) close() error {
	unix.Close(d.waker)
	unix.Close(d.end)
	return unix.Close(d.fd)
}
