//go:build amd64 || arm64

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader/agent"
)

// A process is a thread under a filter that tells its listener of packet sockets.
// It needs no privilege.
type process struct {
	listener int
	ask      chan struct{}
	answers  chan error
}

// installFilter is what a runtime does to the thread that becomes a container.
func installFilter() (listener int, err error) {
	const ld, jeq, ret = 0x20, 0x15, 0x06 // opcodes of linux/bpf_common.h
	filter := []unix.SockFilter{
		{Code: ld, K: 0}, {Code: jeq, Jf: 3, K: unix.SYS_SOCKET},
		{Code: ld, K: 16}, {Code: jeq, Jf: 1, K: unix.AF_PACKET},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF}, {Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, err
	}
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(prog)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func dropCapabilities() error {
	none := [2]unix.CapUserData{}
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}

func startProcess(t *testing.T) *process {
	t.Helper()
	p := &process{ask: make(chan struct{}), answers: make(chan error)}
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its filter
		err := dropCapabilities()
		if err == nil {
			p.listener, err = installFilter()
		}
		p.answers <- err
		for range p.ask {
			p.answers <- packetSocket()
		}
	}()
	if err := <-p.answers; err != nil {
		t.Fatal(err)
	}
	return p
}

// packetSocket opens one and closes it. unix.Socket would not let Go's scheduler
// know that it blocks, and the one that answers is in this process.
func packetSocket() error {
	fd, _, errno := unix.Syscall(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// asks asks for a packet socket.
func (p *process) asks() error {
	p.ask <- struct{}{}
	return <-p.answers
}

func (p *process) ends() { close(p.ask) }

// fleets count what a Server asks of them.
type fleets struct {
	mu       sync.Mutex
	refuse   error
	made     []Container
	sockets  int
	released int
}

func (f *fleets) fleet(c Container) (agent.Captives, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made = append(f.made, c)
	if f.refuse != nil {
		return nil, nil, f.refuse
	}
	return f, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.released++
	}, nil
}

// New makes a socket that is as good as any for whoever has no privilege.
func (f *fleets) New(bool) (agent.Captive, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sockets++
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return &captive{fd: fd, cookie: uint64(f.sockets)}, err
}

func (f *fleets) Existing() (map[uint64]bool, error) { return nil, nil }

func (f *fleets) counts() [3]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return [3]int{len(f.made), f.sockets, f.released}
}

type captive struct {
	fd     int
	cookie uint64
}

func (c *captive) FD() int                     { return c.fd }
func (c *captive) Cookie() uint64              { return c.cookie }
func (c *captive) SetFilter(bpf.Program) error { return nil }
func (c *captive) ClearFilter() error          { return nil }
func (c *captive) Release() error              { return unix.Close(c.fd) }
func (c *captive) Close() error                { return nil }

// A service is a Server that serves.
type service struct {
	t    *testing.T
	path string
	log  *lines
	stop func() error
	*fleets
}

// lines are those of a log, one for each message.
type lines struct {
	mu   sync.Mutex
	text []string
	more chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(b))
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

// count is how many lines have words in them.
func (l *lines) count(words string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.text {
		if strings.Contains(line, words) {
			n++
		}
	}
	return n
}

// wait waits until so many lines have words in them.
func (l *lines) wait(words string, n int) {
	for l.count(words) < n {
		<-l.more
	}
}

func serve(t *testing.T, f *fleets) *service {
	t.Helper()
	s := &service{t: t, path: filepath.Join(t.TempDir(), "s"), log: &lines{more: make(chan struct{}, 1)}, fleets: f}
	l, err := Listen(s.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{Fleet: f.fleet, Log: slog.New(slog.NewTextHandler(s.log, nil))}
	ctx, cancel := context.WithCancel(context.Background()) // not t's, which ends too early
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// sendState does what a runtime does, with listener among the descriptors.
func (s *service) sendState(id string, annotations map[string]string, p *process) {
	s.t.Helper()
	text, err := json.Marshal(specs.ContainerProcessState{
		Version: "1.0.2", Fds: []string{specs.SeccompFdName}, Pid: 1,
		State: specs.State{Version: "1.0.2", ID: id, Pid: 1, Annotations: annotations},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.send(string(text), p.listener)
	unix.Close(p.listener)
}

// send sends a message as far as the service hears it.
func (s *service) send(text string, fds ...int) {
	s.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := write(conn, text, 1<<20, fds...); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		s.t.Fatal(err)
	}
}

func TestAContainerHasAFleetOnceItAsksForAPacketSocket(t *testing.T) {
	f := &fleets{}
	s := serve(t, f)
	p := startProcess(t)
	s.sendState("one", map[string]string{"a": "b"}, p)
	s.log.wait("container served", 1)
	if got := f.counts(); got != [3]int{} {
		t.Errorf("before it asks: %v", got)
	}
	for range 2 {
		if err := p.asks(); err != nil {
			t.Fatal(err)
		}
	}
	p.ends()
	s.log.wait("container has ended", 1)
	if got := f.counts(); got != [3]int{1, 2, 1} {
		t.Errorf("fleets, sockets, released: %v", got)
	}
	if c := f.made[0]; c.ID != "one" || c.Annotations["a"] != "b" || !strings.HasPrefix(c.Namespace, "/proc/self/fd/") {
		t.Errorf("%+v", c)
	}
}

func TestContainersShareAFleetIfNothingTellsThemApart(t *testing.T) {
	f := &fleets{}
	s := serve(t, f)
	var all []*process
	for i, c := range []struct {
		id, annotation string
		fleets         int
	}{{"one", "x", 1}, {"one", "x", 1}, {"one", "y", 2}, {"two", "x", 3}} {
		p := startProcess(t)
		s.sendState(c.id, map[string]string{"a": c.annotation}, p)
		if err := p.asks(); err != nil {
			t.Fatal(err)
		}
		if got := f.counts(); got != [3]int{c.fleets, i + 1, 0} {
			t.Errorf("%+v: fleets, sockets, released: %v", c, got)
		}
		all = append(all, p)
	}
	for i, released := range []int{0, 1, 2, 3} {
		all[i].ends()
		s.log.wait("container has ended", i+1)
		if got := f.counts()[2]; got != released {
			t.Errorf("%d ended, %d released", i+1, got)
		}
	}
}

func TestARefusedContainerIsRefusedOnceAndForAll(t *testing.T) {
	f := &fleets{refuse: errors.New("no such jail")}
	s := serve(t, f)
	p := startProcess(t)
	s.sendState("one", nil, p)
	for range 50 {
		if err := p.asks(); err != unix.EPERM {
			t.Fatalf("%v", err)
		}
	}
	p.ends()
	s.log.wait("container has ended", 1)
	if got := f.counts(); got != [3]int{1, 0, 0} {
		t.Errorf("fleets, sockets, released: %v", got)
	}
	if n := s.log.count("container refused"); n != 1 {
		t.Errorf("%d lines say so", n)
	}
	// What a container does over and over is not logged over and over.
	if n := s.log.count("no captive socket"); n < 1 || n > 10 {
		t.Errorf("%d lines about sockets", n)
	}
}

func TestWhenTheServerEndsContainersLoseTheirListener(t *testing.T) {
	f := &fleets{}
	s := serve(t, f)
	p := startProcess(t)
	s.sendState("one", nil, p)
	if err := p.asks(); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.asks(); err != unix.ENOSYS {
		t.Errorf("%v", err)
	}
	p.ends()
	if got := f.counts(); got != [3]int{1, 1, 1} || s.log.count("container not served any more") != 1 {
		t.Errorf("fleets, sockets, released: %v; %q", got, s.log.text)
	}
}

func TestASocketThatIsListenedToIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "made", "s")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	first.SetUnlinkOnClose(false)
	first.Close()
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("a socket that nobody listens to: %v", err)
	}
	again.Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	if names, err := namesIn(dir); err != nil || !slices.Equal(names, []string{"file", "made"}) {
		t.Errorf("%v, %v", names, err)
	}
}
