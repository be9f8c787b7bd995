package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader"
)

// TestMain lets the test binary be a client that connects and ends.
func TestMain(m *testing.M) {
	if path := os.Getenv("BROKER_TEST_CONNECT"); path != "" {
		const handed = 3
		if err := unix.Connect(handed, &unix.SockaddrUnix{Name: path}); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A mill makes sockets in the place of captive ones, and writes down what is done
// to them.
type mill struct {
	mu     sync.Mutex
	made   []*grist
	refuse error
	before func() // a socket is made
	left   []*grist
	tooFew int  // addresses that spares have room for; 0: any number
	stocks bool // prepares spares too
	spares int  // that are neither used nor closed
	swept  int
}

// A grist is one end of a pair: the other tells whether somebody has it.
type grist struct {
	cfg     loader.CaptiveConfig
	cookie  uint64
	socket  int
	other   int
	mu      sync.Mutex
	filter  bpf.Program // nil: everything
	scope   bpf.Scope
	revoked bool
	closed  bool
	bad     error // of SetScope
	spare   bool  // it was one
}

func (m *mill) Captive(cfg loader.CaptiveConfig) (Captive, error) {
	m.mu.Lock()
	before := m.before
	m.mu.Unlock()
	if before != nil {
		before()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, m.refuse
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	g := &grist{cfg: cfg, cookie: uint64(len(m.made) + 1), socket: pair[0], other: pair[1], scope: cfg.Scope}
	m.made = append(m.made, g)
	return g, nil
}

// interpose has something done before each socket is made.
func (m *mill) interpose(before func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

func (m *mill) Prepare(cfg loader.CaptiveConfig) (Spare, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stocks {
		return nil, errors.New("no spares here")
	}
	m.spares++
	return &husk{m, cfg}, nil
}

// A husk is a spare.
type husk struct {
	mill *mill
	cfg  loader.CaptiveConfig
}

func (h *husk) Captive(iface string, addrs []netip.Prefix) (Captive, error) {
	h.Close()
	if h.mill.tooFew > 0 && len(addrs) > h.mill.tooFew {
		return nil, errors.ErrUnsupported
	}
	cfg := h.cfg
	cfg.Interface, cfg.Scope.Addrs = iface, addrs
	c, err := h.mill.Captive(cfg)
	h.mill.mu.Lock()
	defer h.mill.mu.Unlock()
	if err == nil {
		c.(*grist).spare = true
	}
	return c, err
}

func (h *husk) Close() error {
	h.mill.mu.Lock()
	defer h.mill.mu.Unlock()
	h.mill.spares--
	return nil
}

func (m *mill) ready() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spares
}

func (m *mill) Adopt(label string) (list []Captive, err error) {
	for _, g := range m.left {
		if strings.HasPrefix(g.cfg.Label, label) {
			list = append(list, g)
		}
	}
	return list, nil
}

func (m *mill) Sweep() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.swept++
	return nil
}

func (m *mill) refuses(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

func (m *mill) last() *grist {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made[len(m.made)-1]
}

func (g *grist) FD() int                { return g.socket }
func (g *grist) Cookie() uint64         { return g.cookie }
func (g *grist) Label() string          { return g.cfg.Label }
func (g *grist) LinkType() bpf.LinkType { return bpf.Ethernet }
func (g *grist) Index() int             { return 7 }
func (g *grist) Stats() (Stats, error)  { return Stats{3, 2, 1}, nil }
func (g *grist) SetFilter(p bpf.Program) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.filter = p
	return nil
}

func (g *grist) program() bpf.Program {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.filter
}

func (g *grist) ClearFilter() error { return g.SetFilter(nil) }

func (g *grist) SetScope(s bpf.Scope) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.scope = s
	return g.bad
}

func (g *grist) Revoke() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revoked = true
	return nil
}

func (g *grist) Alive() bool {
	fds := []unix.PollFd{{Fd: int32(g.other)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0 // else POLLHUP
}

func (g *grist) Release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	socket := g.socket
	g.socket = -1
	return unix.Close(socket)
}

func (g *grist) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errors.New("closed twice")
	}
	g.closed = true
	if g.socket >= 0 {
		unix.Close(g.socket)
	}
	return unix.Close(g.other)
}

// state is what has become of it.
func (g *grist) state() (scope bpf.Scope, revoked, closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scope, g.revoked, g.closed
}

// An estate is a Scope that tests change.
type estate struct {
	changes chan bpf.Scope
	fail    chan error
	closed  atomic.Int32
}

func newEstate(hosts ...byte) *estate {
	e := &estate{changes: make(chan bpf.Scope, 8), fail: make(chan error, 1)}
	e.changes <- scopeOf(hosts...)
	return e
}

func scopeOf(hosts ...byte) (s bpf.Scope) {
	for _, h := range hosts {
		s.Addrs = append(s.Addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, h}), 32))
	}
	return s
}

func (e *estate) Watch(ctx context.Context, report func(bpf.Scope)) error {
	for {
		select {
		case s := <-e.changes:
			report(s)
		case err := <-e.fail:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func (e *estate) Describe(s bpf.Scope) string {
	var words []string
	for _, p := range s.Addrs {
		words = append(words, p.Addr().String())
	}
	return "addresses " + strings.Join(words, ", ")
}

func (e *estate) Close() error {
	e.closed.Add(1)
	return nil
}

// nowhere is a namespace that nobody enters.
type nowhere struct{}

func (nowhere) Do(func() error) error { return errors.New("nowhere") }
func (nowhere) Close() error          { return nil }

// A bureau is a Server that makes sockets at a mill, for one jail.
type bureau struct {
	*Server
	*mill
	jail Jail
	path string
	log  *lockedBuffer
	stop func()
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// open opens a bureau for a jail, whose requests are as many as it likes unless
// it has a rate.
func open(t testing.TB, jail Jail, change func(*bureau)) *bureau {
	t.Helper()
	b := &bureau{mill: &mill{}, jail: jail, log: &lockedBuffer{}}
	if b.jail.Limits.Rate == 0 {
		b.jail.Limits.Rate = 1e6
	}
	if b.jail.Name == "" {
		b.jail.Name = "web"
	}
	if b.jail.Scope == nil {
		b.jail.Scope = newEstate(1)
	}
	b.jail.Namespace = nowhere{}
	b.Server = NewServer(Config{
		Captives: b.mill, Label: "test", Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Resolve: func(*Peer) (*Jail, error) { jail := b.jail; return &jail, nil },
		Find: func(name string) (*Jail, error) {
			if name != b.jail.Name {
				return nil, errors.New("unknown jail")
			}
			jail := b.jail
			return &jail, nil
		},
		Compile: func(_ context.Context, _, expression string, _ bpf.LinkType, snaplen int) (bpf.Program, error) {
			if expression != "all" {
				return nil, errors.New("syntax error:\nline 2")
			}
			return bpf.Program{{Op: 6, K: uint32(snaplen)}}, nil
		},
	})
	if change != nil {
		change(b)
	}
	b.path = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: b.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- b.Serve(ctx, l) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		b.Server.Close()
	})
	t.Cleanup(b.stop)
	return b
}

func (b *bureau) dial(t testing.TB) *Client {
	t.Helper()
	c, err := Dial(b.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// capture asks for a capture on a connection of its own.
func (b *bureau) capture(t testing.TB, r Request) (*Client, *os.File) {
	t.Helper()
	c := b.dial(t)
	_, socket, err := c.Capture(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return c, socket
}

// refused asks for a capture that is refused with a code and words.
func (b *bureau) refused(t testing.TB, r Request, code Code, words string) {
	t.Helper()
	_, socket, err := b.dial(t).Capture(r)
	wantRefusal(t, err, code, words)
	if socket != nil {
		t.Error("a socket came with the refusal")
	}
}

func wantRefusal(t testing.TB, err error, code Code, words string) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Code != code || !strings.Contains(r.Text, words) || strings.Contains(r.Text, "\n") {
		t.Errorf("%v; want code %s and one line with %q", err, code, words)
	}
}

// eventually waits for what must come.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it never came: %s", what)
}

// descriptors are those that this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.Collect(slices.Values(entries)))
}
