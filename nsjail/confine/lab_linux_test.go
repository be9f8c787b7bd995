package confine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// A lab is a host with addresses, and the cgroup of a jail that has some of them.
type lab struct {
	*testing.T
	host   *testutil.Namespace
	cgroup string
}

var labs atomic.Int32

// hostAddresses are all on one interface; the tests' jails have the .5, .6, ::5 and ::6.
var hostAddresses = []string{
	"10.0.0.1/24", "10.0.0.5/24", "10.0.0.6/24", "10.0.0.7/24", "fd00::1/64", "fd00::5/64", "fd00::6/64",
}

func newLab(t *testing.T) *lab {
	t.Helper()
	testutil.NeedRoot(t)
	root := ""
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			root = f[1]
		}
	}
	if root == "" {
		testutil.Skip(t, "cgroup2 is not mounted")
	}
	l := &lab{t, testutil.NewNamespace(t), filepath.Join(root, fmt.Sprintf("jtt-confine-%d-%d", os.Getpid(), labs.Add(1)))}
	if err := os.Mkdir(l.cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(l.cgroup); err != nil {
			t.Error(err)
		}
	})
	for _, a := range hostAddresses {
		l.host.AddAddr(t, "lo", a)
	}
	return l
}

// newJail is a lab with rules for a jail of addresses.
func newJail(t *testing.T, addrs ...string) *lab {
	t.Helper()
	l := newLab(t)
	if err := Attach(l.cgroup, addresses(addrs...)); err != nil {
		t.Fatal(err)
	}
	return l
}

func addresses(list ...string) (addrs []netip.Addr) {
	for _, a := range list {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs
}

// in runs f in the host's network.
func (l *lab) in(f func() error) {
	l.Helper()
	if err := l.host.Do(f); err != nil {
		l.Fatal(err)
	}
}

// A rule is one of FreeBSD's, something that a process of the jail does, and what it
// is to say.
type rule struct {
	what string
	do   func() string
	want string
}

// scenes are lists of rules by name.
var scenes = map[string][]rule{}

// TestMain lets the test binary be the jail's process, which does what a scene has.
func TestMain(m *testing.M) {
	scene := os.Getenv("CONFINE_SCENE")
	if scene == "" {
		os.Exit(m.Run())
	}
	for _, r := range scenes[scene] {
		fmt.Println(r.do())
	}
}

// holds runs the process, and compares.
func (l *lab) holds(scene string) {
	l.Helper()
	p := l.act(scene)
	for _, r := range scenes[scene] {
		if got := p.next(); got != r.want {
			l.Errorf("%s: got %s, want %s", r.what, got, r.want)
		}
	}
}

// An actor is a process in a jail.
type actor struct {
	*lab
	lines *bufio.Scanner
	in    io.Writer
}

func (l *lab) act(scene string) *actor {
	l.Helper()
	dir, err := os.Open(l.cgroup)
	if err != nil {
		l.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"CONFINE_SCENE=" + scene}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		l.Fatal(err)
	}
	l.in(cmd.Start)
	l.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &actor{l, bufio.NewScanner(out), in}
}

// next is the next line that the process says.
func (a *actor) next() string {
	a.Helper()
	if !a.lines.Scan() {
		a.Fatalf("the process has ended: %v", a.lines.Err())
	}
	return a.lines.Text()
}

// echo has the host tell whoever sends to port 7 of TCP or UDP its address.
func (l *lab) echo() {
	l.Helper()
	for _, at := range []string{"10.0.0.1:7", "[fd00::1]:7"} {
		l.in(func() error {
			listener, err := net.Listen("tcp", at)
			if err != nil {
				return err
			}
			l.Cleanup(func() { listener.Close() })
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					fmt.Fprint(c, host(c.RemoteAddr()))
					c.Close()
				}
			}()
			packets, err := net.ListenPacket("udp", at)
			if err != nil {
				return err
			}
			l.Cleanup(func() { packets.Close() })
			go func() {
				for {
					_, from, err := packets.ReadFrom(make([]byte, 9))
					if err != nil {
						return
					}
					packets.WriteTo([]byte(host(from)), from)
				}
			}()
			return nil
		})
	}
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

// What follows is done in the jail, on sockets as the kernel has them.

// failed is the name of an error.
func failed(err error) string {
	if errno, ok := err.(unix.Errno); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// with makes a socket, and says what f says of it or why there is none. kind has the
// family, 4 or 6, and tcp or udp.
func with(kind string, f func(fd int) string) string {
	family, typ := unix.AF_INET6, unix.SOCK_DGRAM
	if strings.HasSuffix(kind, "4") {
		family = unix.AF_INET
	}
	if strings.HasPrefix(kind, "tcp") {
		typ = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(fd)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 300_000})
	return f(fd)
}

// sockaddr is that of the text ADDRESS PORT; an IPv4 address in IPv6 is ::ffff:ADDRESS.
func sockaddr(text string) unix.Sockaddr {
	var a string
	var port int
	fmt.Sscan(text, &a, &port)
	addr := netip.MustParseAddr(a)
	if addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: addr.As16(), Port: port}
}

func addressOf(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr).String()
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr).String()
	}
	return fmt.Sprintf("%T", sa)
}

// local is the address that a socket has, if err is nil.
func local(fd int, err error) string {
	if err != nil {
		return failed(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return failed(err)
	}
	return addressOf(sa)
}

// heard is what comes to a socket, if err is nil.
func heard(fd int, err error) string {
	if err != nil {
		return failed(err)
	}
	buf := make([]byte, 100)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return failed(err)
	}
	return string(buf[:n])
}

// bind says what address a socket has after bind(2).
func bind(kind, to string) func() string {
	return func() string {
		return with(kind, func(fd int) string { err := unix.Bind(fd, sockaddr(to)); return local(fd, err) })
	}
}

// bindOnly does it with IPV6_V6ONLY.
func bindOnly(kind, to string) func() string {
	return func() string {
		return with(kind, func(fd int) string {
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
			err := unix.Bind(fd, sockaddr(to))
			return local(fd, err)
		})
	}
}

// connect says whom the host has seen, after bind(2) if from is not "".
func connect(kind, from, to string) func() string {
	return func() string {
		return with(kind, func(fd int) string {
			if from != "" {
				if err := unix.Bind(fd, sockaddr(from)); err != nil {
					return failed(err)
				}
			}
			if err := unix.Connect(fd, sockaddr(to)); err != nil {
				return failed(err)
			}
			if strings.HasPrefix(kind, "udp") {
				unix.Write(fd, []byte("hello"))
			}
			return heard(fd, nil)
		})
	}
}

// send says whom the host has seen of a datagram that has control messages.
func send(kind, to string, control []byte) func() string {
	return func() string {
		return with(kind, func(fd int) string {
			return heard(fd, unix.Sendmsg(fd, []byte("hello"), control, sockaddr(to), 0))
		})
	}
}
