package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

// newWarden opens a Warden with guards of its own, and checks at the end that
// nothing is left of them.
func newWarden(t testing.TB) (*Warden, WardenConfig) {
	t.Helper()
	testutil.NeedRoot(t)
	mount, _, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("jailtap-test-%d", os.Getpid())
	cfg := WardenConfig{Pins: "/sys/fs/bpf/" + name, Cgroup: filepath.Join(mount, name)}
	w, err := OpenWarden(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		for _, path := range []string{cfg.Pins, cfg.Cgroup} {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				entries, _ := os.ReadDir(path)
				t.Errorf("%s is left: %v, %v", path, err, entries)
			}
		}
	})
	return w, cfg
}

func newCaptive(t *testing.T, w *Warden, cfg CaptiveConfig) *Captive {
	t.Helper()
	c, err := w.Captive(cfg)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// bindTo binds a captive as its holder would.
func bindTo(t *testing.T, c *Captive, l lab, name string) {
	t.Helper()
	onLink(t, l.near, name, func(link netlink.Link) error {
		return unix.Bind(c.FD(), &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
	})
}

// arriving are the frames that come to a captive until none has for a while.
func arriving(t *testing.T, c *Captive) (frames [][]byte) {
	t.Helper()
	timeout := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(c.FD(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(c.FD(), buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, slices.Clone(buf[:n]))
	}
}

func wantFrames(t *testing.T, got [][]byte, want ...[]byte) {
	t.Helper()
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %d frames, want %d:\n%x\n%x", len(got), len(want), got, want)
	}
}

func TestACaptiveShowsItsJailsFramesAndNoOthers(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	bindTo(t, c, l, "eth0")
	request := testutil.ARP(testutil.ARPRequest, station(2).Addr(), station(3).Addr(), testutil.BroadcastMAC)
	tagged := testutil.Tagged(udp(1, 2, "tagged"), 0x8100, 7)
	l.send(t, udp(1, 2, "from"), udp(2, 3, "foreign"), udp(3, 1, "to"), tagged, request, marker)
	wantFrames(t, arriving(t, c), udp(1, 2, "from"), udp(3, 1, "to"), request, marker)
	stats, err := c.Stats()
	if want := (CaptiveStats{Seen: 6, InScope: 4, Matched: 4}); err != nil || stats != want {
		t.Errorf("stats %+v, %v; want %+v", stats, err, want)
	}
}

func TestACaptiveDatagramSocketStartsAtTheNetworkHeader(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Datagram: true, Scope: scopeOf(1)})
	if err := unix.Bind(c.FD(), &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}); err != nil { // any
		t.Fatal(err)
	}
	l.send(t, udp(2, 3, "foreign"), udp(1, 2, "from"))
	wantFrames(t, arriving(t, c), udp(1, 2, "from")[14:])
}

// toStation3 takes the first 40 bytes of what is for 10.0.0.3.
var toStation3 = bpf.Program{{Op: 0x20, K: 30}, {Op: 0x15, Jf: 1, K: 0x0a000003}, {Op: 0x06, K: 40}, {Op: 0x06}}

func TestTheUsersFilterOfACaptiveChangesInItsScope(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	bindTo(t, c, l, "eth0")
	exchange := func() [][]byte {
		l.send(t, udp(1, 2, "a"), udp(2, 3, "foreign"), udp(1, 3, "bb"))
		return arriving(t, c)
	}
	for _, step := range []struct {
		name string
		set  func() error
		want [][]byte
	}{
		{"none", func() error { return nil }, [][]byte{udp(1, 2, "a"), udp(1, 3, "bb")}},
		{"one", func() error { return c.SetFilter(toStation3) }, [][]byte{udp(1, 3, "bb")[:40]}},
		{"nothing", func() error { return c.SetFilter(returns(0)) }, nil},
		{"everything", func() error { return c.SetFilter(returns(bpf.KeepAll)) }, [][]byte{udp(1, 2, "a"), udp(1, 3, "bb")}},
		{"none again", c.ClearFilter, [][]byte{udp(1, 2, "a"), udp(1, 3, "bb")}},
	} {
		if err := step.set(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		t.Log(step.name)
		wantFrames(t, exchange(), step.want...)
	}
	hatype := bpf.Program{{Op: 0x20, K: 0xfffff000 + 28}, {Op: 0x16}}
	if err := c.SetFilter(hatype); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a program without translation: %v", err)
	}
	if err := c.SetFilter(bpf.Program{{Op: 0x05, K: 9}}); !errors.As(err, new(*bpf.ProgramError)) {
		t.Errorf("an invalid program: %v", err)
	}
}

func TestTheScopeOfACaptiveChangesInItsHoldersHands(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	bindTo(t, c, l, "eth0")
	exchange := func() [][]byte {
		l.send(t, udp(1, 9, "1"), udp(2, 9, "2"), marker)
		return arriving(t, c)
	}
	if err := c.SetScope(scopeOf(2)); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, exchange(), udp(2, 9, "2"), marker)
	if err := c.SetScope(bpf.Scope{Addrs: scopeOf(1).Addrs, Policy: bpf.Classic}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("another policy: %v", err)
	}
	if err := c.SetScope(manyAddrs(5000)); !errors.Is(err, errCapacity) {
		t.Errorf("too many addresses: %v", err)
	}
	wantFrames(t, exchange())
	if err := c.SetScope(scopeOf(1)); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, exchange(), udp(1, 9, "1"), marker)
	if err := c.Revoke(); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, exchange())
	if err := c.SetScope(scopeOf(1)); !errors.Is(err, errRevoked) {
		t.Errorf("after it was revoked: %v", err)
	}
}

// The holder binds where they like, and the program must not be misled by what
// another link type has at the same offsets.
func TestACaptiveThatIsBoundElsewhereShowsNoForeignFrames(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	bindTo(t, c, l, "eth0")
	tun := newTun(t, l.near)
	bindTo(t, c, l, "tun0")
	arriving(t, c)
	// Behind 12 bytes, where Ethernet has its type, this packet says IPv4, and
	// behind 26, where that has its source, 10.0.0.1.
	forged := udp(2, 3, "0123456789abcdef0123456789abcdef")[14:]
	copy(forged[12:], []byte{8, 0})
	copy(forged[26:], []byte{10, 0, 0, 1, 10, 0, 0, 1})
	foreign, own := udp(2, 3, "foreign")[14:], udp(2, 1, "own")[14:]
	for _, packet := range [][]byte{forged, foreign, own} {
		if _, err := tun.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	wantFrames(t, arriving(t, c), own)
}

// newTun makes tun0, whose packets begin at the IP header.
func newTun(t *testing.T, ns *testutil.Namespace) *os.File {
	t.Helper()
	var tun *os.File
	err := ns.Do(func() error {
		link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN,
			Flags: netlink.TUNTAP_NO_PI, Queues: 1}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		tun = link.Fds[0]
		return netlink.LinkSetUp(link)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tun.Close() })
	return tun
}

func TestTheFilterOfACaptiveIsLocked(t *testing.T) {
	w, _ := newWarden(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: newLab(t).near, Scope: scopeOf(1)})
	everything := &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: 0x06, K: 0xffffffff}}
	for name, err := range map[string]error{
		"SO_ATTACH_FILTER": unix.SetsockoptSockFprog(c.FD(), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, everything),
		"SO_DETACH_FILTER": unix.SetsockoptInt(c.FD(), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0),
		"SO_LOCK_FILTER":   unix.SetsockoptInt(c.FD(), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0),
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v, want EPERM", name, err)
		}
	}
}

func TestTheOptionsOfACaptiveAreTheHarmlessOnes(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	const copyThresh, txRing, loss, vnetHdr, txTimestamp, txHasOff, qdiscBypass, fanout, fanoutData, vnetHdrSz = 7, 13, 14, 15, 16, 19, 20, 18, 22, 24
	for _, option := range []int{copyThresh, txRing, loss, vnetHdr, txTimestamp, txHasOff, qdiscBypass, fanout, fanoutData, vnetHdrSz, 99} {
		if err := unix.SetsockoptInt(c.FD(), unix.SOL_PACKET, option, 1); !errors.Is(err, unix.EPERM) {
			t.Errorf("SOL_PACKET option %d: %v, want EPERM", option, err)
		}
	}
	for _, option := range []int{unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, unix.SO_MARK, unix.SO_PRIORITY, unix.SO_BINDTODEVICE,
		unix.SO_TXTIME, unix.SO_BUSY_POLL, unix.SO_ATTACH_REUSEPORT_CBPF, unix.SO_TIMESTAMPING} {
		if err := unix.SetsockoptInt(c.FD(), unix.SOL_SOCKET, option, 1); !errors.Is(err, unix.EPERM) {
			t.Errorf("SOL_SOCKET option %d: %v, want EPERM", option, err)
		}
	}
	for _, option := range []int{unix.PACKET_AUXDATA, unix.PACKET_ORIGDEV, unix.PACKET_TIMESTAMP, unix.PACKET_IGNORE_OUTGOING} {
		if err := unix.SetsockoptInt(c.FD(), unix.SOL_PACKET, option, 1); err != nil {
			t.Errorf("SOL_PACKET option %d: %v", option, err)
		}
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_BROADCAST} {
		if err := unix.SetsockoptInt(c.FD(), unix.SOL_SOCKET, option, 1<<20); err != nil {
			t.Errorf("SOL_SOCKET option %d: %v", option, err)
		}
	}
	r, err := newRing(c.FD(), 256<<10, false)
	if err != nil {
		t.Error(err)
	}
	r.close()

	// Promiscuous mode succeeds, and the interface knows nothing of it.
	onLink(t, l.near, "eth0", func(link netlink.Link) error {
		mreq := &unix.PacketMreq{Ifindex: int32(link.Attrs().Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(c.FD(), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, mreq); err != nil {
			t.Error(err)
		}
		now, err := netlink.LinkByIndex(link.Attrs().Index)
		if err == nil && now.Attrs().Promisc != 0 {
			t.Error("the interface is promiscuous")
		}
		return err
	})
}

// sendAny tries every way to send that a plain socket has, to an interface.
func sendAny(fd, index int, frame []byte) {
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: index, Halen: 6}
	unix.Sendto(fd, frame, 0, to)
	unix.Sendmsg(fd, frame, nil, to, 0)
	unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index})
	unix.Write(fd, frame)
	unix.Writev(fd, [][]byte{frame})
	unix.SendmsgN(fd, frame, nil, nil, unix.MSG_DONTWAIT)
}

func TestACaptiveSendsNothing(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	far := l.watchFar(t, "eth0")
	index := 0
	onLink(t, l.near, "eth0", func(link netlink.Link) error { index = link.Attrs().Index; return nil })
	sendAny(c.FD(), index, udp(1, 2, "out"))
	if n := far(); n != 0 {
		t.Errorf("%d frames arrived", n)
	}

	// An interface that comes later.
	l.near.VethTo(t, l.far, "later", "later")
	far = l.watchFar(t, "later")
	onLink(t, l.near, "later", func(link netlink.Link) error { index = link.Attrs().Index; return nil })
	guardedBy(t, w, index)
	sendAny(c.FD(), index, udp(1, 2, "out"))
	if n := far(); n != 0 {
		t.Errorf("%d frames arrived on the later interface", n)
	}

	// Others still send.
	l.near.Inject(t, "later", udp(5, 6, "free"))
	if n := far(); n != 1 {
		t.Errorf("%d frames of others arrived, want 1", n)
	}
}

// watchFar counts the frames that come to the far end since the last call.
func (l lab) watchFar(t *testing.T, name string) func() int {
	t.Helper()
	tap := l.openFar(t, name)
	return func() int {
		time.Sleep(50 * time.Millisecond) // what would have come has come
		s, err := tap.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return int(s.Received)
	}
}

func (l lab) openFar(t *testing.T, name string) *Tap {
	t.Helper()
	s := bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
	tap, err := Open(Config{Interface: name, Namespace: l.far, Scope: s, Direction: In, RingBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap
}

// guardedBy waits until an interface has its guard.
func guardedBy(t *testing.T, w *Warden, index int) {
	t.Helper()
	for range 200 {
		guarded := false
		w.guards.eachPin(func(_ uint64, i int) { guarded = guarded || i == index })
		if guarded {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("interface %d has no guard", index)
}

func TestSweepRemovesTheGuardsWithTheLastCaptive(t *testing.T) {
	w, cfg := newWarden(t)
	l := newLab(t)
	c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	held, err := unix.Dup(c.FD()) // somebody else's
	if err != nil {
		t.Fatal(err)
	}
	pins := func() int {
		n := 0
		w.guards.eachPin(func(uint64, int) { n++ })
		return n
	}
	c.Close()
	if err := w.Sweep(); err != nil || pins() == 0 {
		t.Errorf("while the socket is held: %d pins, %v", pins(), err)
	}
	unix.Close(held)
	if err := w.guards.settle(); err != nil {
		t.Fatal(err)
	}
	if err := w.Sweep(); err != nil || pins() != 0 {
		t.Errorf("after its end: %d pins in %s, %v", pins(), cfg.Pins, err)
	}
	// And all is there again for the next one.
	c = newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1)})
	if pins() == 0 {
		t.Error("no guard for the next captive")
	}
	c.Close()
}

// A process that makes a captive socket, hands it over, and then waits to be
// killed.
func TestMain(m *testing.M) {
	if pins := os.Getenv("JAILTAP_TEST_WARDEN_PINS"); os.Getenv("JAILTAP_TEST_WARDENS") != "" {
		if err := comeAndGo(pins, os.Getenv("JAILTAP_TEST_WARDEN_CGROUP")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	} else if pins != "" {
		if err := makeCaptiveAndWait(pins, os.Getenv("JAILTAP_TEST_WARDEN_CGROUP"), os.Getenv("JAILTAP_TEST_WARDEN_NETNS")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func makeCaptiveAndWait(pins, cgroup, netns string) error {
	w, err := OpenWarden(WardenConfig{Pins: pins, Cgroup: cgroup})
	if err != nil {
		return err
	}
	file, err := os.Open(netns)
	if err != nil {
		return err
	}
	c, err := w.Captive(CaptiveConfig{Namespace: namespaceFile{file}, Scope: scopeOf(1)})
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(c.FD()), nil, 0); err != nil {
		return err
	}
	select {}
}

// fromKilledWarden is a captive socket whose Warden was killed.
func fromKilledWarden(t *testing.T, cfg WardenConfig, netns string) (fd int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "JAILTAP_TEST_WARDEN_PINS="+cfg.Pins, "JAILTAP_TEST_WARDEN_CGROUP="+cfg.Cgroup, "JAILTAP_TEST_WARDEN_NETNS="+netns)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	defer unix.Close(pair[0])
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil || n == 0 {
		t.Fatalf("no socket came: %v", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	return fds[0]
}

func TestACaptiveStaysCaptiveWhenItsWardenIsKilled(t *testing.T) {
	testutil.NeedRoot(t)
	mount, _, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("jailtap-test-%d-killed", os.Getpid())
	cfg := WardenConfig{Pins: "/sys/fs/bpf/" + name, Cgroup: filepath.Join(mount, name)}
	l := newLab(t)
	fd := fromKilledWarden(t, cfg, l.near.Path)

	// By nobody, and by the next Warden.
	for _, warden := range []bool{false, true} {
		var w *Warden
		if warden {
			if w, err = OpenWarden(cfg); err != nil {
				t.Fatal(err)
			}
			newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(2)}).Close()
			if err := w.Sweep(); err != nil {
				t.Fatal(err)
			}
		}
		held := &Captive{captive{socket: fd}}
		bindTo(t, held, l, "eth0")
		l.send(t, udp(1, 2, "own"), udp(2, 3, "foreign"))
		wantFrames(t, arriving(t, held), udp(1, 2, "own"))
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); !errors.Is(err, unix.EPERM) {
			t.Errorf("PACKET_QDISC_BYPASS: %v", err)
		}
		far := l.watchFar(t, "eth0")
		onLink(t, l.near, "eth0", func(link netlink.Link) error {
			sendAny(fd, link.Attrs().Index, udp(1, 2, "out"))
			return nil
		})
		if n := far(); n != 0 {
			t.Errorf("%d frames arrived", n)
		}
		if warden {
			unix.Close(fd)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, path := range []string{cfg.Pins, cfg.Cgroup} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			entries, _ := os.ReadDir(path)
			t.Errorf("%s is left: %v, %v", path, err, entries)
		}
	}
}

func TestManyCaptivesLeaveNothing(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	var all []*Captive
	for i := range 1000 {
		c := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(byte(i)), Interface: "eth0"})
		all = append(all, c)
	}
	l.send(t, udp(7, 250, "seven"))
	for i, c := range all {
		if stats, err := c.Stats(); err != nil || stats.Seen != 1 || (stats.InScope == 1) != (byte(i) == 7 || byte(i) == 250) {
			t.Errorf("captive %d: %+v, %v", i, stats, err)
		}
	}
	closeAtOnce(all)
	if err := w.guards.settle(); err != nil {
		t.Error(err)
	}
	var cookie uint64
	var socket guardCaptive
	if w.guards.Captives.Iterate().Next(&cookie, &socket) {
		t.Errorf("socket %d is still listed", cookie)
	}
}

// closeAtOnce closes captives, eight at a time: each waits for a grace period or
// two, and not too many programs should be freed in one.
func closeAtOnce(all []*Captive) {
	var closers sync.WaitGroup
	for part := range slices.Chunk(all, (len(all)+7)/8) {
		closers.Go(func() {
			for _, c := range part {
				c.Close()
			}
		})
	}
	closers.Wait()
}
