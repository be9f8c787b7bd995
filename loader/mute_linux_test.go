package loader

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// needEgress skips where the kernel has no netfilter egress chain for all
// interfaces.
func needEgress(t *testing.T, w *Warden, l lab) {
	t.Helper()
	gap, err := w.Guard(l.near)
	if err != nil {
		t.Fatal(err)
	}
	if gap != nil {
		testutil.Skip(t, "this kernel has a gap: %v", gap)
	}
}

func TestACaptiveSendsNothingOnAnInterfaceThatHasJustAppeared(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	needEgress(t, w, l)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	last := 0
	onLink(t, l.near, "eth0", func(link netlink.Link) error { last = link.Attrs().Index; return nil })

	// The holder sends to the numbers that interfaces will have, without pause.
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			for i := range 40 {
				select {
				case <-stop:
					sent <- n
					return
				default:
				}
				to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: last + 1 + i, Halen: 6}
				if unix.Sendto(c.FD(), udp(1, 2, "out"), 0, to) == nil {
					n++
				}
			}
		}
	}()
	for i := range 10 {
		l.near.VethTo(t, l.far, fmt.Sprint("new", i), fmt.Sprint("new", i))
	}
	close(stop)
	if n := <-sent; n != 0 {
		t.Errorf("%d frames were sent", n)
	}
}

func TestTheMarkOfCaptivesAlsoMutesWhatGoesPastTheQueues(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	needEgress(t, w, l)
	newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	far := l.watchFar(t, "eth0")
	onLink(t, l.near, "eth0", func(link netlink.Link) error {
		// As a captive whose options were not guarded, as in 32-bit system calls.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
		sendAny(fd, link.Attrs().Index, udp(1, 2, "free"))
		before := far()
		if before == 0 {
			t.Error("nothing was sent without the mark: the test proves nothing")
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, captiveMark); err != nil {
			return err
		}
		sendAny(fd, link.Attrs().Index, udp(1, 2, "out"))
		if n := far() - before; n != 0 {
			t.Errorf("%d frames arrived", n)
		}
		return nil
	})
}

func TestACaptiveOfAnInterfaceStaysThere(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	l.near.VethTo(t, l.far, "other", "other")
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1), Interface: "eth0"})
	l.send(t, udp(1, 2, "own"), udp(3, 2, "foreign"))
	wantFrames(t, arriving(t, c), udp(1, 2, "own"))
	onLink(t, l.near, "other", func(link netlink.Link) error {
		for _, index := range []int{link.Attrs().Index, 0} {
			err := unix.Bind(c.FD(), &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index})
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("bound to interface %d: %v, want EINVAL", index, err)
			}
		}
		return nil
	})
	l.far.Inject(t, "other", udp(1, 2, "elsewhere"))
	l.send(t, udp(1, 2, "again"))
	wantFrames(t, arriving(t, c), udp(1, 2, "again"))
}

func TestWhoHasSettledDownJoinsNoOtherFanOutGroup(t *testing.T) {
	l := newLab(t)
	onLink(t, l.near, "eth0", func(link netlink.Link) error {
		c := captive{link: linkOf(link)}
		var err error
		if c.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(c.socket)
		if err := unix.Bind(c.socket, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: c.link.index}); err != nil {
			return err
		}
		if err := c.settleDown(); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(c.socket, unix.SOL_PACKET, unix.PACKET_FANOUT, 77); !errors.Is(err, unix.EALREADY) {
			t.Errorf("PACKET_FANOUT: %v, want EALREADY", err)
		}
		return nil
	})
}

func linkOf(l netlink.Link) link { return link{name: l.Attrs().Name, index: l.Attrs().Index} }

func TestARingOfACaptiveIsOfLimitedSize(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	if _, err := newRing(c.FD(), 33<<20, false); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("33 MiB: %v, want ENOMEM", err)
	}
	r, err := newRing(c.FD(), 32<<20, false)
	if err != nil {
		t.Errorf("32 MiB: %v", err)
	}
	r.close()
	made := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1), Interface: "eth0", RingBytes: 1 << 20})
	r, _ = geometry(1<<20, false)
	if err := r.mapFrom(made.FD()); err != nil {
		t.Error(err)
	}
	r.close()
}

func TestTheChainOfAWardenThatWasKilledIsRemovedWithItsLastCaptive(t *testing.T) {
	w, cfg := newWarden(t)
	l := newLab(t)
	needEgress(t, w, l)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	err := l.near.Do(func() error {
		left, err := guardEgress(filepath.Base(cfg.Pins)) // as if it had come no further
		if err != nil {
			return err
		}
		left.close()
		next, err := OpenWarden(cfg)
		if err != nil {
			return err
		}
		defer next.Close()
		again := &egress{table: filepath.Base(cfg.Pins)}
		defer again.close()
		return again.ask(again.newTable(unix.NLM_F_EXCL)) // EEXIST if it is there
	})
	if err != nil {
		t.Error(err)
	}
}

// The kernel takes the tag off before it comes to sockets of one protocol.
func TestACaptiveOfOneProtocolShowsNoFramesOfVLANs(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	var here testutil.MAC
	onLink(t, l.near, "eth0", func(link netlink.Link) error {
		here = testutil.MAC(link.Attrs().HardwareAddr)
		return unix.Bind(c.FD(), &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: link.Attrs().Index})
	})
	to := func(mac testutil.MAC, frame []byte) []byte { return append(mac[:], frame[6:]...) }
	own := to(here, udp(1, 2, "own"))
	l.far.Inject(t, "eth0",
		to(here, testutil.Tagged(udp(1, 2, "another network"), 0x8100, 7)),
		udp(1, 2, "to another host"), // as such frames look when they have lost their tags
		own)
	wantFrames(t, arriving(t, c), own)
}
