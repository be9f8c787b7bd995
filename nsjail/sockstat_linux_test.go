package nsjail

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// opened is a namespace of the test's own with a function that makes sockets
// in it, which are closed when the test ends.
func opened(t *testing.T) (*Jail, func(domain, kind, protocol int) int) {
	t.Helper()
	j, err := OpenNamespace(testutil.NewNamespace(t).Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, func(domain, kind, protocol int) (fd int) {
		t.Helper()
		err := j.Do(func() (err error) {
			fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// texts are sockets in a short form, without what is another process's.
func texts(list []Socket) []string {
	var lines []string
	for _, s := range list {
		if s.PID != 0 && s.PID != os.Getpid() {
			continue
		}
		version := map[[2]bool]string{{true, false}: "4", {false, true}: "6", {true, true}: "46"}[[2]bool{s.IPv4, s.IPv6}]
		lines = append(lines, fmt.Sprintf("fd %d %s%s %s %s", s.FD, s.Protocol, version, s.Local, s.Remote))
	}
	return lines
}

func TestSocketsOfANamespaceAreListedWithTheirProcess(t *testing.T) {
	j, socket := opened(t)
	tcp4 := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	must(t, unix.Bind(tcp4, &unix.SockaddrInet4{Port: 22, Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(tcp4, 1))
	both := socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	must(t, unix.Bind(both, &unix.SockaddrInet6{Port: 80}))
	must(t, unix.Listen(both, 1))
	only6 := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	must(t, unix.SetsockoptInt(only6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
	must(t, unix.Bind(only6, &unix.SockaddrInet6{Port: 53}))
	udp4 := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(t, unix.Bind(udp4, &unix.SockaddrInet4{Port: 53}))
	raw := socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	client := socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	must(t, unix.Bind(client, &unix.SockaddrInet4{Port: 4000, Addr: [4]byte{127, 0, 0, 2}}))
	must(t, unix.Connect(client, &unix.SockaddrInet4{Port: 22, Addr: [4]byte{127, 0, 0, 1}}))

	list, err := Sockets(SocketQuery{Namespace: j, IPv4: true, IPv6: true})
	must(t, err)
	want := []string{
		fmt.Sprintf("fd %d tcp4 127.0.0.1:22 0.0.0.0:0", tcp4),
		fmt.Sprintf("fd %d tcp46 [::]:80 [::]:0", both),
		fmt.Sprintf("fd %d udp6 [::]:53 [::]:0", only6),
		fmt.Sprintf("fd %d udp4 0.0.0.0:53 0.0.0.0:0", udp4),
		fmt.Sprintf("fd %d raw4 0.0.0.0:1 0.0.0.0:0", raw),
		fmt.Sprintf("fd %d tcp4 127.0.0.2:4000 127.0.0.1:22", client),
		"fd -1 tcp4 127.0.0.1:22 127.0.0.2:4000", // nobody has accepted it yet
	}
	if got := texts(list); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, s := range list {
		if s.PID == os.Getpid() && (s.UID != os.Geteuid() || s.Command == "") {
			t.Errorf("user %d, command %q", s.UID, s.Command)
		}
	}

	for name, test := range map[string]struct {
		query SocketQuery
		want  []string
	}{
		"IPv6, and what hears both": {SocketQuery{IPv6: true}, want[1:3]},
		"a protocol":                {SocketQuery{IPv4: true, IPv6: true, Protocols: []string{"raw"}}, want[4:5]},
		"of nobody":                 {SocketQuery{IPv4: true, Process: func(int) bool { return false }}, nil},
		"of this process":           {SocketQuery{IPv4: true, Protocols: []string{"udp"}, Process: func(pid int) bool { return pid == os.Getpid() }}, want[3:4]},
	} {
		test.query.Namespace = j
		list, err := Sockets(test.query)
		if got := texts(list); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, test.want)
		}
	}
}

func TestSocketsOfOtherNamespacesAreNotListed(t *testing.T) {
	a, socket := opened(t)
	b, _ := opened(t)
	fd := socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Port: 5353}))
	for j, want := range map[*Jail]int{a: 1, b: 0} {
		list, err := Sockets(SocketQuery{Namespace: j, IPv4: true, IPv6: true, Unix: true})
		if err != nil || len(list) != want {
			t.Errorf("%s: %q, %v, want %d", j, texts(list), err, want)
		}
	}
}

func TestUnixSocketsHaveTheirPathsAndPeers(t *testing.T) {
	j, socket := opened(t)
	path := filepath.Join(t.TempDir(), "s\x1b[2J")
	listener := socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, unix.Bind(listener, &unix.SockaddrUnix{Name: path}))
	must(t, unix.Listen(listener, 1))
	client := socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, unix.Connect(client, &unix.SockaddrUnix{Name: path}))
	accepted, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	must(t, err)
	defer unix.Close(accepted)
	waiting := socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, unix.Connect(waiting, &unix.SockaddrUnix{Name: path}))
	abstract := socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	must(t, unix.Bind(abstract, &unix.SockaddrUnix{Name: "@jailtap-test"}))

	list, err := Sockets(SocketQuery{Namespace: j, Unix: true})
	must(t, err)
	byFD := map[int]Socket{}
	for _, s := range list {
		byFD[s.FD] = s
	}
	shown := strings.ReplaceAll(path, "\x1b", "?")
	if s := byFD[listener]; s.Path != shown || s.Protocol != "stream" || s.Connected() || s.IPv4 || s.IPv6 {
		t.Errorf("listener %+v", s)
	}
	if s := byFD[client]; s.Path != "" || !s.Connected() || s.PeerPath != shown {
		t.Errorf("client %+v", s)
	}
	if s := byFD[waiting]; !s.Connected() || s.PeerPath != "" {
		t.Errorf("waiting to be accepted: %+v", s)
	}
	if s := byFD[abstract]; s.Path != "@jailtap-test" || s.Protocol != "seqpac" {
		t.Errorf("abstract %+v", s)
	}
}

func TestSocketsOfThisNamespaceNeedNoPrivilege(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	list, err := Sockets(SocketQuery{IPv4: true})
	must(t, err)
	want := l.Addr().(*net.TCPAddr).AddrPort()
	if !slices.ContainsFunc(list, func(s Socket) bool { return s.Local == want && s.PID == os.Getpid() }) {
		t.Errorf("%v is not among %q", want, texts(list))
	}
}

func TestAMappedAddressIsOfIPv4(t *testing.T) {
	m := make([]byte, inetMessageLen)
	m[0] = unix.AF_INET6
	m[5] = 80
	copy(m[8:], netip.MustParseAddr("::ffff:192.0.2.1").AsSlice())
	s, err := parseInet(m)
	if err != nil || s.Local != netip.MustParseAddrPort("192.0.2.1:80") || !s.IPv4 || s.IPv6 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := parseInet(m[:inetMessageLen-1]); err == nil {
		t.Error("a short answer is read")
	}
	a, err := hexAddrPort("0000000000000000FFFF0000010200C0:0001")
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && (err != nil || a != netip.MustParseAddrPort("192.0.2.1:1")) {
		t.Errorf("got %v, %v", a, err)
	}
	for _, line := range []string{"", "1 2 3", "0: 00:0 00:0 7 0 0 0 0 0 5", "0: 00000000:x 00000000:0 7 0 0 0 0 0 5"} {
		if _, err := parseRaw(line); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
}
