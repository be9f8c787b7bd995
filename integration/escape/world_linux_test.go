//go:build amd64 || arm64

package escape

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// A world is a host with interfaces, what is at their other ends, and who
// watches.
type world struct {
	t              *testing.T
	host, wire     *testutil.Namespace
	jailtap, self  string // programs that nobody may execute
	warden         *warden
	daemon         *daemon
	traffic        *traffic
	marks          *marks
	monitor, other *witness      // the neighbours
	interfaces     *atomic.Int64 // made later
	promiscuous    int           // how often the first interface is, from the start
}

func newWorld(t *testing.T) *world {
	testutil.NeedRoot(t)
	w := &world{t: t, host: testutil.NewNamespace(t), wire: testutil.NewNamespace(t), marks: &marks{seen: map[string]int{}}, interfaces: new(atomic.Int64)}
	w.programs()
	for _, name := range []string{"eth0", "eth1"} {
		w.host.VethTo(t, w.wire, name, name)
	}
	w.host.AddAddr(t, "eth0", "10.0.9.1/24")
	w.check(w.host.Do(func() error { return setMAC("eth0", testutil.MACOf(jail4)) }))
	w.wire.AddAddr(t, "eth0", "10.0.9.2/24")
	w.upper()
	w.promiscuous = w.promiscuity("eth0")
	tun := w.tun()
	w.warden = startWarden(w, wardenPlace(t, ""))
	w.daemon = startDaemon(w)
	w.traffic = startTraffic(w, tun)
	w.marks.watch(w, w.packetSocket(w.wire, unix.ETH_P_ALL))
	w.marks.watch(w, w.outgoing())
	w.marks.watch(w, tun)
	w.monitor = startWitness(w, "the monitor", w.group())
	w.other = startWitness(w, "the neighbour", w.neighbour())
	return w
}

// within is the world for a test.
func (w *world) within(t *testing.T) *world {
	w2 := *w
	w2.t = t
	return &w2
}

// programs puts jailtap and this test where others may execute them.
func (w *world) programs() {
	dir, err := os.MkdirTemp("", "jailtap-escape")
	w.check(err)
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	w.check(os.Chmod(dir, 0o755))
	w.jailtap, w.self = filepath.Join(dir, "jailtap"), filepath.Join(dir, "attacker")
	if *jailtapProgram == "" {
		out, err := exec.Command("go", "build", "-o", w.jailtap, "jailtap/cmd/jailtap").CombinedOutput()
		if err != nil {
			w.t.Fatalf("go build: %v\n%s", err, out)
		}
	} else {
		w.copy(*jailtapProgram, w.jailtap)
	}
	w.copy("/proc/self/exe", w.self)
}

func (w *world) copy(from, to string) {
	data, err := os.ReadFile(from)
	w.check(err)
	w.check(os.WriteFile(to, data, 0o755))
}

// secret is a file of the operator's.
func (w *world) secret() *os.File {
	path := filepath.Join(filepath.Dir(w.self), "secret")
	w.check(os.WriteFile(path, []byte(foreignWord), 0o600))
	f, err := os.Open(path)
	w.check(err)
	return f
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// upper makes an interface upon the first one, which gets frames to others.
func (w *world) upper() {
	w.check(w.host.Do(func() error {
		parent, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		address := testutil.MACOf(other4)
		attrs := netlink.LinkAttrs{Name: "upper0", ParentIndex: parent.Attrs().Index, HardwareAddr: address[:]}
		link := &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	}))
}

// tun makes an interface whose packets begin at the IP header. What it sends
// can be read from the file.
func (w *world) tun() int {
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI, Queues: 1}
	w.check(w.host.Do(func() error {
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	}))
	w.t.Cleanup(func() { link.Fds[0].Close() })
	fd := int(link.Fds[0].Fd())
	w.check(unix.SetNonblock(fd, true))
	return fd
}

// packetSocket is root's, and of no cgroup of jailtap's.
func (w *world) packetSocket(ns *testutil.Namespace, protocol uint16) (fd int) {
	w.t.Helper()
	w.check(ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(protocol)))
		return err
	}))
	w.check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	w.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// outgoing is a socket that shows what the host sends, on all interfaces.
func (w *world) outgoing() int {
	fd := w.packetSocket(w.host, 0)
	const pktType, load, equal, ret = 0xfffff000 + 4, 0x30, 0x15, 0x06
	w.check(attach(fd, []unix.SockFilter{{Code: load, K: pktType}, {Code: equal, Jf: 1, K: unix.PACKET_OUTGOING}, {Code: ret, K: 1 << 16}, {Code: ret}}))
	w.check(bindFor(fd, "any", unix.ETH_P_ALL))
	return fd
}

// fanoutID is the number of the monitor's group.
const fanoutID = 0x6a74

// group is the socket of a monitor in a fanout group.
func (w *world) group() int {
	fd := w.packetSocket(w.host, 0)
	w.check(w.host.Do(func() error { return bindTo(fd, "eth0") }))
	w.check(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, fanoutID|unix.PACKET_FANOUT_HASH<<16))
	return fd
}

// neighbour is another jail's captive socket.
func (w *world) neighbour() int {
	conn := w.warden.client()
	w.t.Cleanup(func() { conn.Close() })
	fd, err := fetch(int(conn.Fd()), fmt.Sprint(unix.SOCK_RAW, " held neighbour"))
	w.check(err)
	w.check(unix.SetNonblock(fd, true))
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<20)
	w.check(w.host.Do(func() error { return bindTo(fd, "eth0") }))
	w.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// later makes an interface, with traffic on it until the attempt has ended.
func (w *world) later(kind string) string {
	name := fmt.Sprint(kind, w.interfaces.Add(1))
	far := name
	switch kind {
	case "moved": // made elsewhere, where it is given to the host
		far = name + "p"
		w.check(w.wire.Veth(w.wire.Namespace, name, far))
		w.check(w.wire.Do(func() error { return moveTo(name, w.host.Path) }))
		w.check(w.host.Do(func() error { return setUp(name) }))
	default:
		w.check(w.host.Veth(w.wire.Namespace, name, far))
	}
	w.t.Cleanup(func() { w.check(w.wire.Do(func() error { return remove(far) })) })
	w.traffic.add(w, w.wire, far)
	return name
}

func remove(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

func moveTo(name, namespace string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	ns, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	return netlink.LinkSetNsFd(link, int(ns.Fd()))
}

func setMAC(name string, mac testutil.MAC) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetHardwareAddr(link, mac[:])
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// promiscuity is how often an interface of the host was made promiscuous.
func (w *world) promiscuity(ifname string) (n int) {
	w.check(w.host.Do(func() error {
		link, err := netlink.LinkByName(ifname)
		if err == nil {
			n = link.Attrs().Promisc + link.Attrs().Allmulti
		}
		return err
	}))
	return n
}

// A traffic sends frames all the time.
type traffic struct {
	mu       sync.Mutex
	outlets  []outlet
	number   uint32 // of the last numbered frame
	stop     chan struct{}
	finished sync.WaitGroup
}

// An outlet is where frames are put on a wire.
type outlet struct {
	fd, ifindex int
	frames      [][]byte
	numbered    int // frames to the neighbour beside
}

// tick is the time between two rounds.
const tick = 5 * time.Millisecond

func startTraffic(w *world, tun int) *traffic {
	tr := &traffic{stop: make(chan struct{}), number: 1}
	tr.addFrames(w, w.wire, "eth0", append(own(), foreign()...), 3)
	tr.add(w, w.wire, "eth1")
	tr.add(w, w.host, "lo")
	packets := append(forged(), own()[0][14:])
	tr.outlets = append(tr.outlets, outlet{tun, 0, packets, 0})
	tr.finished.Go(tr.run)
	w.t.Cleanup(func() { close(tr.stop); tr.finished.Wait() })
	return tr
}

func (tr *traffic) add(w *world, ns *testutil.Namespace, ifname string) {
	tr.addFrames(w, ns, ifname, append(own(), foreign()[:3]...), 0)
}

func (tr *traffic) addFrames(w *world, ns *testutil.Namespace, ifname string, frames [][]byte, numbered int) {
	fd, ifindex := w.packetSocket(ns, 0), 0
	w.check(ns.Do(func() error {
		link, err := net.InterfaceByName(ifname)
		if err == nil {
			ifindex = link.Index
		}
		return err
	}))
	w.t.Cleanup(func() { tr.drop(fd) }) // before it is closed
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.outlets = append(tr.outlets, outlet{fd, ifindex, frames, numbered})
}

func (tr *traffic) drop(fd int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.outlets = slices.DeleteFunc(tr.outlets, func(o outlet) bool { return o.fd == fd })
}

func (tr *traffic) run() {
	for ticks := time.Tick(tick); ; {
		select {
		case <-tr.stop:
			return
		case <-ticks:
			tr.round()
		}
	}
}

func (tr *traffic) round() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, o := range tr.outlets {
		for _, f := range o.frames {
			o.send(f)
		}
		for range o.numbered {
			if o.send(numbered(tr.number+1)) == nil {
				tr.number++
			}
		}
	}
}

func (o outlet) send(frame []byte) error {
	if o.ifindex == 0 {
		_, err := unix.Write(o.fd, frame)
		return err
	}
	return unix.Sendto(o.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: o.ifindex})
}

// inject puts frames on the first wire, in one go.
func (tr *traffic) inject(frames [][]byte) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, f := range frames {
		if err := tr.outlets[0].send(f); err != nil {
			return err
		}
	}
	return nil
}

// last is the number of the last numbered frame.
func (tr *traffic) last() uint32 {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.number
}
