//go:build amd64 || arm64 || riscv64

package loader

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

type native struct {
	control int // any socket, for requests about interfaces
	tap     ifreq
	wire    int // what is written here comes in on the interface
	dev     *devBPF
	buf     []byte
}

func (n *native) open() (err error) {
	n.control, n.wire = -1, -1
	if n.dev, err = openDevBPF(); err != nil {
		return err
	}
	if n.control, err = unix.Socket(unix.AF_LOCAL, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	copy(n.tap.name[:], "tap")
	if err := n.request(unix.SIOCIFCREATE2, &n.tap); err != nil { // puts a number behind the name
		n.tap = ifreq{}
		return fmt.Errorf("make a tap(4) interface: %w", err)
	}
	if n.wire, err = unix.Open("/dev/"+n.name(), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /dev/%s: %w", n.name(), err)
	}
	if err := n.up(); err != nil {
		return fmt.Errorf("bring %s up: %w", n.name(), err)
	}
	return n.listen()
}

func (n *native) name() string { return unix.ByteSliceToString(n.tap.name[:]) }

// request is an ioctl(2) about an interface; netintro(4).
func (n *native) request(r uint, arg *ifreq) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.control), uintptr(r), uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

func (n *native) up() error {
	arg := n.tap
	if err := n.request(unix.SIOCGIFFLAGS, &arg); err != nil {
		return err
	}
	arg.value[0] |= unix.IFF_UP // ifr_flags, little-endian
	return n.request(unix.SIOCSIFFLAGS, &arg)
}

// listen has the device see every frame that comes in.
func (n *native) listen() error {
	length, err := n.dev.number(setBufferLength, 1<<17)
	if err != nil {
		return fmt.Errorf("%s: %w", setBufferLength, err)
	}
	n.buf = make([]byte, length)
	if _, err := n.dev.attach(n.name()); err != nil {
		return fmt.Errorf("BIOCSETIF %s: %w", n.name(), err)
	}
	// Else tap(4) drops what is for other MACs.
	if _, err := n.dev.number(setPromiscuous, 0); err != nil {
		return fmt.Errorf("%s: %w", setPromiscuous, err)
	}
	if _, err := n.dev.number(setDirection, directions[In]); err != nil {
		return fmt.Errorf("%s: %w", setDirection, err)
	}
	// Activates the device, which BIOCSETF may not: see bpfConn.enforce.
	if err := n.dev.program(setFilterNoFlush, returns(0)); err != nil {
		return fmt.Errorf("%s: %w", setFilterNoFlush, err)
	}
	return nil
}

func (n *native) run(p bpf.Program, frame []byte) (int, error) {
	const header = 14 // of Ethernet
	switch {
	case len(frame) < header:
		return 0, fmt.Errorf("a frame of %d bytes through tap(4): %w: it wants %d or more", len(frame), errors.ErrUnsupported, header)
	case len(p) == 0:
		return len(frame), nil // no filter, which is what BIOCSETF makes of it
	}
	if err := n.dev.program(setFilter, p); err != nil {
		return 0, fmt.Errorf("%s: %w", setFilter, err)
	}
	if _, err := unix.Write(n.wire, frame); err != nil {
		return 0, fmt.Errorf("send a frame of %d bytes through %s: %w", len(frame), n.name(), err)
	}
	if err := n.seen(); err != nil {
		return 0, fmt.Errorf("send a frame of %d bytes through %s: %w", len(frame), n.name(), err)
	}
	length, err := n.dev.read(n.buf)
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read what %s let through: %w", n.name(), err)
	}
	records := bpfRecords{format: stampMicro, buf: n.buf[:length]}
	record, err := records.next()
	return len(record.data), err
}

// seen waits until the filter was asked, which with net.isr.dispatch=direct, the
// default, it has been when write returns. BIOCSETF has zeroed the counter.
func (n *native) seen() error {
	const tries = 1000
	for range tries {
		received, _, err := n.dev.counts()
		if received > 0 || err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("it did not arrive")
}

func (n *native) close() error {
	var errs []error
	if n.dev != nil {
		errs = append(errs, n.dev.close())
	}
	if n.wire >= 0 {
		errs = append(errs, unix.Close(n.wire))
	}
	if n.tap.name[0] != 0 {
		errs = append(errs, n.request(unix.SIOCIFDESTROY, &n.tap))
	}
	if n.control >= 0 {
		errs = append(errs, unix.Close(n.control))
	}
	return errors.Join(errs...)
}
