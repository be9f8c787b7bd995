package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// held is a captive's socket in somebody else's hands.
func held(t *testing.T, c *Captive) int {
	t.Helper()
	fd, err := unix.Dup(c.FD())
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestACaptiveStaysCaptiveWhenItsWardenClosesAndTheNextOpens(t *testing.T) {
	w, cfg := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	fd := held(t, c)
	c.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := OpenWarden(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); !errors.Is(err, unix.EPERM) {
		t.Errorf("PACKET_QDISC_BYPASS: %v, want EPERM", err)
	}
	unix.Close(fd)
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestAWardenThatSweptInVainIsStillCounted(t *testing.T) {
	w, cfg := newWarden(t)
	other, err := OpenWarden(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l := newLab(t)
	newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)}).Close()
	if err := w.guards.settle(); err != nil {
		t.Fatal(err)
	}
	for _, warden := range []*Warden{w, other} { // neither may remove a guard that the other counts on
		if err := warden.Sweep(); err != nil {
			t.Fatal(err)
		}
	}
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	defer c.Close()
	pins := 0
	w.guards.eachPin(func(uint64, int) { pins++ })
	if pins == 0 {
		t.Error("a captive socket, and no guard on sending")
	}
}

func TestSweepingLeavesNoCaptiveWithoutItsGuard(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				w.Sweep()
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for range 20 {
		c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
		if err := l.near.Do(func() error { return everyInterfaceGuarded(w) }); err != nil {
			t.Fatal(err)
		}
		c.Close()
		w.guards.settle() // so that the next one needs new guards
	}
}

func everyInterfaceGuarded(w *Warden) error {
	inode, err := namespaceInode(nil)
	if err != nil {
		return err
	}
	links, err := netlink.LinkList()
	for _, link := range links {
		if !w.guards.holds(inode, link.Attrs().Index) {
			return fmt.Errorf("nothing guards %s", link.Attrs().Name)
		}
	}
	return err
}

// As several jailtap run at once do.
func TestWardensThatGuardOneNamespaceAtOnceAllGuardIt(t *testing.T) {
	w, cfg := newWarden(t)
	l := newLab(t)
	for i := range 10 {
		l.near.VethTo(t, l.near, fmt.Sprint("a", i), fmt.Sprint("b", i))
	}
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			other, err := OpenWarden(cfg)
			if err != nil {
				return err
			}
			_, err = other.Guard(l.near)
			if err == nil {
				err = l.near.Do(func() error { return everyInterfaceGuarded(w) })
			}
			return errors.Join(err, other.Close())
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestWardensComeWhileOthersGo(t *testing.T) {
	_, cfg := newWarden(t)
	var group errgroup.Group
	for range 2 {
		group.Go(func() error {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "JAILTAP_TEST_WARDENS=1",
				"JAILTAP_TEST_WARDEN_PINS="+cfg.Pins+"-others", "JAILTAP_TEST_WARDEN_CGROUP="+cfg.Cgroup+"-others")
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// comeAndGo is what each of the others does.
func comeAndGo(pins, cgroup string) error {
	for range 60 {
		w, err := OpenWarden(WardenConfig{Pins: pins, Cgroup: cgroup})
		if err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Containers come and go on a busy host.
func TestInterfacesThatComeAndGoDoNotStopCaptives(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	err := l.near.Do(func() error {
		for i := range 30 {
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("brief", i)}, PeerName: fmt.Sprint("peer", i)}
			if err := errors.Join(netlink.LinkAdd(veth), netlink.LinkDel(veth)); err != nil {
				return err
			}
			time.Sleep(time.Millisecond) // programs are freed
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(2)})
}

func TestACaptiveOfVLANsShowsTheirFramesOnly(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	s := scopeOf(1)
	s.VLANs.IDs = []uint16{7}
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Datagram: true, Scope: s})
	bindTo(t, c, l, "eth0")
	own, foreign := udp(1, 2, "own"), udp(2, 3, "foreign")
	l.send(t, testutil.Tagged(own, 0x8100, 7), testutil.Tagged(own, 0x8100, 8), testutil.Tagged(foreign, 0x8100, 7),
		testutil.Tagged(testutil.Tagged(own, 0x8100, 7), 0x8100, 7))
	wantFrames(t, arriving(t, c), own[14:])
}
