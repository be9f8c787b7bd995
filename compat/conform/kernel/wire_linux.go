package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/compat/conform"
	"jailtap/internal/netlab"
	"jailtap/loader"
)

// wire sends frames through a veth pair and captures them at its other end as
// jailtap capture does, so that the whole path is asked and not the interpreter
// alone: by sockets of their own, or through the interface's hub.
type wire struct {
	ends chan *ends
	hub  bool
}

// wires is how many there are: to open a capture takes a while, and less if
// others do so at the same time.
const wires = 16

// wirePrefix begins the names of the namespaces.
const wirePrefix = "jtc"

func openWire() (conform.Engine, error) { return openEnds(false) }
func openHub() (conform.Engine, error)  { return openEnds(true) }

func openEnds(hub bool) (conform.Engine, error) {
	if os.Geteuid() != 0 {
		return nil, &conform.CannotError{Reason: "a wire between network namespaces needs root"}
	}
	netlab.RemoveStale(wirePrefix)
	e := &wire{make(chan *ends, wires), hub}
	for i := range wires {
		w, err := newEnds(i)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.ends <- w
	}
	return e, nil
}

func (e *wire) Name() string {
	if e.hub {
		return "hub"
	}
	return "wire"
}

func (e *wire) Mode() conform.Mode { return conform.Linux }

// Metadata is not known: it is that of a veth interface, and a VLAN tag is in it.
func (e *wire) Metadata(bpf.Packet) (m bpf.Metadata, known bool) { return m, false }

func (e *wire) Close() (err error) {
	for {
		select {
		case w := <-e.ends:
			err = errors.Join(err, w.close())
		default:
			return err
		}
	}
}

func (e *wire) Ask(f conform.Filter, pkts []bpf.Packet) ([]conform.Answer, error) {
	if f.LinkType != bpf.Ethernet {
		return nil, &conform.CannotError{Reason: "the wire is Ethernet"}
	}
	if f.Scope == nil {
		if err := f.Program.Validate(bpf.Linux); err != nil {
			return nil, conform.Explain(err)
		}
	}
	answers := make([]conform.Answer, len(pkts))
	carried := 0
	for i, pkt := range pkts {
		answers[i].Cannot = uncarried(f.Program, pkt)
		if answers[i].Cannot == "" && e.hub {
			answers[i].Cannot = unhubbed(f, pkt.Data)
		}
		if answers[i].Cannot == "" {
			carried++
		}
	}
	if carried == 0 {
		return answers, nil
	}
	w := <-e.ends
	defer func() { e.ends <- w }()
	return answers, w.capture(f, e.hub, pkts, answers)
}

// unhubbed says why the hub cannot be asked about a frame: its engine wants headers whole,
// as all eBPF does here.
func unhubbed(f conform.Filter, frame []byte) string {
	const header, ipv4, ipv6, arp = 14, 20, 40, 28
	if f.Scope == nil {
		return "a hub is for captures with a scope"
	}
	need := map[uint16]int{unix.ETH_P_IP: ipv4, unix.ETH_P_IPV6: ipv6, unix.ETH_P_ARP: arp, unix.ETH_P_RARP: arp}
	payload, etherType := frame[header:], binary.BigEndian.Uint16(frame[12:])
	for isTag(etherType) && len(payload) >= 4 {
		etherType, payload = binary.BigEndian.Uint16(payload[2:]), payload[4:]
	}
	if len(payload) < need[etherType] {
		return "the frame is cut inside its header"
	}
	return ""
}

// uncarried says why a frame cannot be sent or will not come out whole.
func uncarried(p bpf.Program, pkt bpf.Packet) string {
	const header, tag, most = 14, 6, 65535 // of the tag, what the kernel looks at to take it out
	switch size := len(pkt.Data); {
	case size <= header:
		return "a frame on Ethernet has a header and something behind it"
	case size > most:
		return "the frame is longer than the wire takes"
	case size < header+tag && isTag(binary.BigEndian.Uint16(pkt.Data[12:])):
		return "the kernel drops a frame that ends in its VLAN tag"
	}
	return conform.Cut(p, pkt)
}

func isTag(etherType uint16) bool {
	return etherType == unix.ETH_P_8021Q || etherType == unix.ETH_P_8021AD
}

// ends are a veth pair in namespaces of its own.
type ends struct {
	near, far *netlab.Namespace
	send      int // a packet socket at the far end, for sending only
	witness   int // one at the near end, without a filter
	buf       []byte
}

const ifname = "eth0"

func newEnds(i int) (*ends, error) {
	w := &ends{send: -1, witness: -1, buf: make([]byte, 1)}
	if err := w.setUp(i); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *ends) setUp(i int) (err error) {
	if w.near, err = netlab.New(netlab.Name(wirePrefix, fmt.Sprintf("near%d", i))); err != nil {
		return err
	}
	if w.far, err = netlab.New(netlab.Name(wirePrefix, fmt.Sprintf("far%d", i))); err != nil {
		return err
	}
	if err := w.near.Veth(w.far, ifname, ifname); err != nil {
		return err
	}
	// Protocol 0: it receives nothing.
	if w.send, err = socketIn(w.far, 0); err != nil {
		return err
	}
	w.witness, err = socketIn(w.near, unix.ETH_P_ALL)
	return err
}

// socketIn binds a packet socket to the interface, which gets the longest MTU.
func socketIn(n *netlab.Namespace, protocol uint16) (fd int, err error) {
	err = n.Do(func() error {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(ifname)
		if err != nil {
			return err
		}
		ifr.SetUint32(65535)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: int(ifr.Uint32()), Protocol: protocol<<8 | protocol>>8})
	})
	if err != nil {
		return fd, fmt.Errorf("packet socket in %s: %w", n.Name, err)
	}
	return fd, nil
}

func (w *ends) close() (err error) {
	for _, fd := range []int{w.send, w.witness} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	for _, n := range []*netlab.Namespace{w.near, w.far} {
		if n != nil {
			err = errors.Join(err, n.Remove())
		}
	}
	return err
}

// capture answers what has not been answered yet.
func (w *ends) capture(f conform.Filter, hub bool, pkts []bpf.Packet, answers []conform.Answer) error {
	cfg := loader.Config{Interface: ifname, Namespace: w.near, Direction: loader.In, Immediate: true, RingBytes: 256 << 10,
		Filter: func(bpf.LinkType) (bpf.Program, error) { return f.Program, nil }}
	switch {
	case f.Scope == nil:
		cfg.NoScope = true
	case hub:
		cfg.Scope, cfg.Hub = *f.Scope, loader.HubAlways
	default:
		// The classic engine judges frames that are cut inside a header as the
		// specification does; the other one wants the whole of it.
		cfg.Scope, cfg.Engine = *f.Scope, loader.CBPF
	}
	throttle()
	tap, err := loader.Open(cfg)
	if err != nil {
		return conform.Explain(err)
	}
	defer tap.Close()
	if hub && tap.Engine() != loader.EBPF {
		return fmt.Errorf("no hub: %s", tap.Reason())
	}
	for i, pkt := range pkts {
		if answers[i].Cannot != "" {
			continue
		}
		if answers[i], err = w.pass(tap, pkt.Data); err != nil {
			return err
		}
	}
	return nil
}

// pass sends a frame, waits until it has come, and says how much of it the tap
// has. The kernel gives a frame to the sockets that have been opened last first,
// so that the witness is the last one to see it.
func (w *ends) pass(tap *loader.Tap, frame []byte) (conform.Answer, error) {
	if _, err := unix.Write(w.send, frame); err != nil {
		return conform.Answer{}, fmt.Errorf("send a frame of %d bytes: %w", len(frame), err)
	}
	if err := w.arrived(); err != nil {
		return conform.Answer{}, fmt.Errorf("a frame of %d bytes: %w", len(frame), err)
	}
	var a conform.Answer
	ended, end := context.WithCancel(context.Background())
	end() // what has arrived is all there is to read
	err := tap.Read(ended, func(p *loader.Packet) error {
		a = conform.Arrived(true, len(p.Data))
		return nil
	})
	return a, err
}

// arrived waits for the witness.
func (w *ends) arrived() error {
	const patience = 5 * time.Second
	for {
		_, _, err := unix.Recvfrom(w.witness, w.buf, 0)
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(w.witness), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(patience.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n == 0 {
			return errors.New("it does not come out of the wire")
		}
	}
}
