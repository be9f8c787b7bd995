package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader"
)

var toStation3 = bpf.Program{{Op: 0x20, K: 30}, {Op: 0x15, Jf: 1, K: 0x0a000003}, {Op: 6, K: 96}, {Op: 6}}

func TestAClientGetsTheSocketAndIsToldWhatItIs(t *testing.T) {
	b := open(t, Jail{}, nil)
	c := b.dial(t)
	g, socket, err := c.Capture(Request{Interface: "eth0", Ring: 4096, Filter: Filter{Expression: "all", Snaplen: 96}})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	want := Grant{Cookie: 1, Interface: "eth0", Ifindex: 7, LinkType: 1, Ring: 4096, Jail: "web", Scope: "addresses 10.0.0.1", Policy: "full"}
	if fmt.Sprint(*g) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", *g, want)
	}
	made := b.last()
	if made.cfg.Label != "test/web" || made.cfg.RingBytes != 4096 || made.cfg.Interface != "eth0" || len(made.program()) != 1 || made.program()[0].K != 96 {
		t.Errorf("%+v, filter %v", made.cfg, made.program())
	}
	if _, err := unix.Write(made.other, []byte("frame")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := socket.Read(buf); err != nil || string(buf[:n]) != "frame" {
		t.Errorf("the socket is another one: %q, %v", buf[:n], err)
	}
	eventually(t, "its line in the log", func() bool { return strings.Contains(b.log.String(), "captive given") })
	for _, words := range []string{fmt.Sprint("pid=", os.Getpid()), fmt.Sprint("uid=", os.Getuid()), "jail=web", "interface=eth0", "cookie=1", "filter=1"} {
		if !strings.Contains(b.log.String(), words) {
			t.Errorf("the log has no %s:\n%s", words, b.log)
		}
	}
}

func TestTheFilterOfASocketIsChangedAsLongAsTheConnectionLasts(t *testing.T) {
	b := open(t, Jail{}, nil)
	c, _ := b.capture(t, Request{Interface: "eth0", Filter: Filter{Program: ProgramOf(toStation3)}})
	made := b.last()
	if !slices.Equal(made.program(), toStation3) {
		t.Errorf("filter %v", made.program())
	}
	if rest, err := c.SetFilter(Filter{Expression: "all"}); err != nil || rest.Program != nil || made.program()[0].K != 262144 {
		t.Errorf("%v, %v, filter %v", rest, err, made.program())
	}
	_, err := c.SetFilter(Filter{Expression: "nothing"})
	wantRefusal(t, err, CodeFilter, "syntax error: line 2")
	if s, err := c.Stats(); err != nil || s != (Stats{3, 2, 1}) {
		t.Errorf("%v, %v", s, err)
	}
	if err := c.ClearFilter(); err != nil || made.program() != nil {
		t.Errorf("%v, filter %v", err, made.program())
	}
	if rest, err := c.SetFilter(Filter{Snaplen: 64}); err != nil || rest.Program != nil || len(made.program()) != 1 || made.program()[0].K != 64 {
		t.Errorf("%v, %v, filter %v", rest, err, made.program())
	}
	if _, err := c.SetFilter(Filter{}); err != nil || made.program() != nil {
		t.Errorf("%v, filter %v", err, made.program())
	}
	_, _, err = c.Capture(Request{Interface: "eth0"})
	wantRefusal(t, err, CodeMessage, "make another")
	_, err = b.dial(t).Stats()
	wantRefusal(t, err, CodeMessage, "has none")
}

// A program that loads the byte that a VLAN tag would be in, at an offset that is
// only known when it runs.
var notLive = bpf.Program{{Op: 0x30, K: 14}, {Op: 0x07}, {Op: 0x50, K: 0}, {Op: 0x16}}

func TestWhatTheKernelCannotFilterIsLeftToTheClient(t *testing.T) {
	vlans := scopeOf(1)
	vlans.VLANs.Any = true
	estate := newEstate()
	<-estate.changes
	estate.changes <- vlans
	b := open(t, Jail{Scope: estate}, nil)
	if _, err := bpf.Live(notLive, bpf.View{LinkType: bpf.Ethernet, Live: true}, vlans.VLANs); !errors.Is(err, bpf.ErrNotLive) {
		t.Fatalf("the program is no example: %v", err)
	}
	g, socket, err := b.dial(t).Capture(Request{Interface: "eth0", Filter: Filter{Program: ProgramOf(notLive)}})
	if err != nil {
		t.Fatal(err)
	}
	socket.Close()
	if rest, err := g.Rest.Program.BPF(); err != nil || !slices.Equal(rest, notLive) || b.last().program() != nil {
		t.Errorf("left %v (%v), in the kernel %v", rest, err, b.last().program())
	}
}

func TestWhatIsRefusedHasACodeAndLeavesNothing(t *testing.T) {
	long := bpf.Program{}
	for range 65 {
		long = append(long, bpf.Program{{Op: 6}}...)
	}
	b := open(t, Jail{Interfaces: []string{"eth0", "any"}, Limits: Limits{Instructions: 64, RingBytes: 1 << 20}}, nil)
	for _, c := range []struct {
		r     Request
		code  Code
		words string
	}{
		{Request{Interface: "eth1"}, CodeInterface, `"eth1" is not for jail web`},
		{Request{}, CodeInterface, `"" is not for jail web`},
		{Request{Interface: "any", Datagram: true}, CodeMessage, "datagram goes without"},
		{Request{Interface: "eth0", Ring: 1<<20 + 1}, CodeLimit, "a ring of 1048577 bytes"},
		{Request{Interface: "eth0", Ring: -1}, CodeMessage, "bad ring -1"},
		{Request{Interface: "eth0", Filter: Filter{Snaplen: -1}}, CodeFilter, "bad snaplen -1"},
		{Request{Interface: "eth0", Filter: Filter{Expression: "some"}}, CodeFilter, "syntax error"},
		{Request{Interface: "eth0", Filter: Filter{Expression: strings.Repeat("x", 16<<10+1)}}, CodeLimit, "longer than 16384"},
		{Request{Interface: "eth0", Filter: Filter{Expression: "all", Program: ProgramOf(toStation3)}}, CodeFilter, "exclude one another"},
		{Request{Interface: "eth0", Filter: Filter{Program: ProgramOf(long)}}, CodeLimit, "65 instructions: jail web may have 64"},
		{Request{Interface: "eth0", Filter: Filter{Program: Program{{6, 256}}}}, CodeFilter, "jumps have 8"},
		{Request{Interface: "eth0", Filter: Filter{Program: Program{{0x15, 9, 9}}}}, CodeFilter, ""},
	} {
		b.refused(t, c.r, c.code, c.words)
	}
	b.mill.refuses(&loader.InterfaceError{Name: "eth0", Known: []string{"lo"}})
	b.refused(t, Request{Interface: "eth0"}, CodeInterface, "known are lo")
	b.mill.refuses(errors.New("no tcx"))
	b.refused(t, Request{Interface: "eth0"}, CodeGuard, "no tcx")
	b.mill.refuses(fmt.Errorf("make a map: %w", unix.EMFILE))
	b.refused(t, Request{Interface: "eth0"}, CodeLimit, "no descriptors left")
	if n := strings.Count(b.log.String(), "msg=refused"); n != 15 {
		t.Errorf("%d refusals in the log, want 15:\n%s", n, b.log)
	}
	for _, g := range b.made {
		if _, _, closed := g.state(); !closed {
			t.Errorf("a socket is left of %+v", g.cfg)
		}
	}
	if s := b.Server.Stats(); s[1].Captives != 0 || s[1].RingBytes != 0 || s[1].Refused[CodeFilter] != 3 || s[0].Refused[CodeMessage] != 2 {
		t.Errorf("%+v", s)
	}
}

func TestMessagesOutsideTheProtocolEndTheConnection(t *testing.T) {
	b := open(t, Jail{}, nil)
	for text, want := range map[string]Code{
		"x":                                    CodeMessage,
		"[]":                                   CodeMessage,
		"null":                                 CodeVersion,
		`{"op":"capture"}`:                     CodeVersion,
		`{"version":2,"op":"capture"}`:         CodeVersion,
		`{"version":1}`:                        CodeMessage,
		`{"version":1,"op":"dance"}`:           CodeMessage,
		`{"version":1,"op":"capture","uid":0}`: CodeMessage,
		`{"version":1,"op":"capture","ring":"8"}`:                 CodeMessage,
		`{"version":1,"op":"capture","program":[[1,2,3,4,5]]} {}`: CodeMessage,
		`{"version":1,"op":"stats","ring":8}`:                     CodeMessage,
		`{"version":1,"op":"filter","interface":"eth0"}`:          CodeMessage,
		strings.Repeat(" ", maxMessage+1):                         CodeMessage,
	} {
		c := b.dial(t)
		if err := c.send([]byte(text)); err != nil {
			t.Fatalf("%.40s: %v", text, err)
		}
		a, _, err := c.receive()
		if err != nil || a.Error == nil || a.Error.Code != want || a.Version != 1 {
			t.Errorf("%.40s: %+v, %v; want %s", text, a, err, want)
		}
		if _, _, err := c.receive(); err == nil {
			t.Errorf("%.40s: the connection goes on", text)
		}
	}
}

func TestAJailHasItsLimitsHoweverManyClientsItHas(t *testing.T) {
	b := open(t, Jail{Limits: Limits{Captives: 3, RingBytes: 10 << 10}}, nil)
	_, first := b.capture(t, Request{Interface: "eth0", Ring: 8 << 10})
	b.refused(t, Request{Interface: "eth0", Ring: 4 << 10}, CodeLimit, "10240 are all")
	b.capture(t, Request{Interface: "eth0", Ring: 2 << 10})
	b.capture(t, Request{Interface: "eth0"})
	b.refused(t, Request{Interface: "eth0"}, CodeLimit, "3 captive sockets")
	first.Close()
	eventually(t, "room for another", func() bool {
		_, again, err := b.dial(t).Capture(Request{Interface: "eth0", Ring: 8 << 10})
		if err == nil {
			again.Close()
		}
		return err == nil
	})
	eventually(t, "the end of the other", func() bool { return b.Server.Stats()[1].Captives == 2 })
	if s := b.Server.Stats()[1]; s.Captives != 2 || s.RingBytes != 2<<10 || s.Given != 4 || s.Stats != (Stats{12, 8, 4}) {
		t.Errorf("%+v", s)
	}
}

func TestAJailAsksOnlySoOften(t *testing.T) {
	b := open(t, Jail{Limits: Limits{Rate: 1}}, nil)
	c, _ := b.capture(t, Request{Interface: "eth0"})
	var err error
	for range 10 {
		if _, err = c.Stats(); err != nil {
			break
		}
	}
	wantRefusal(t, err, CodeLimit, "more than 1 things a second")
	b.refused(t, Request{Interface: "eth0"}, CodeLimit, "more than 1 things a second")
}

func TestAUserHasOnlySoManyConnections(t *testing.T) {
	b := open(t, Jail{}, func(b *bureau) { b.MaxPerUser = 2 })
	first, _ := b.capture(t, Request{Interface: "eth0"})
	b.capture(t, Request{Interface: "eth0"})
	b.refused(t, Request{Interface: "eth0"}, CodeLimit, "has 2 connections")
	first.Close()
	eventually(t, "room for another", func() bool {
		_, socket, err := b.dial(t).Capture(Request{Interface: "eth0"})
		if err == nil {
			socket.Close()
		}
		return err == nil
	})
	b = open(t, Jail{}, func(b *bureau) { b.MaxConnections = 1 })
	b.capture(t, Request{Interface: "eth0"})
	b.refused(t, Request{Interface: "eth0"}, CodeLimit, "1 connections")
}

func TestDescriptorsThatAClientSendsAreNeverOpenHere(t *testing.T) {
	b := open(t, Jail{}, nil)
	c := b.dial(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before := descriptors(t)
	rights := unix.UnixRights(slices.Repeat([]int{int(w.Fd())}, 200)...)
	text, _ := json.Marshal(message{Version: Version, Op: opStats})
	for range 20 {
		if err := unix.Sendmsg(c.fd, text, rights, nil, unix.MSG_NOSIGNAL); err != nil {
			t.Fatal(err)
		}
		if a, _, err := c.receive(); err != nil || a.Error.Code != CodeMessage {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	if now := descriptors(t); now > before+4 { // the connection's own
		t.Errorf("%d descriptors, before %d", now, before)
	}
	w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the pipe is open elsewhere")
	}
}

func TestAClientThatDoesNothingHoldsUpNobody(t *testing.T) {
	b := open(t, Jail{}, nil)
	deaf := b.dial(t)
	text, _ := json.Marshal(message{Version: Version, Op: opStats})
	unix.SetsockoptTimeval(deaf.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 200_000})
	for { // until the Server's answers fill its queue, and its questions the Server's
		if err := deaf.send(text); err != nil {
			break
		}
	}
	b.dial(t) // says nothing
	b.capture(t, Request{Interface: "eth0"})
}

func TestTheScopeOfAllSocketsFollowsTheJail(t *testing.T) {
	e := newEstate(1)
	b := open(t, Jail{Scope: e}, nil)
	c, _ := b.capture(t, Request{Interface: "eth0"})
	one := b.last()
	b.interpose(func() { // as the second is being made
		e.changes <- scopeOf(1, 2)
		eventually(t, "the change", func() bool { s, _, _ := one.state(); return len(s.Addrs) == 2 })
	})
	g, socket, err := b.dial(t).Capture(Request{Interface: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	two := b.last()
	if s, _, _ := two.state(); len(s.Addrs) != 2 || g.Scope != "addresses 10.0.0.1, 10.0.0.2" {
		t.Errorf("a socket that was made meanwhile has %v, %q", s, g.Scope)
	}
	c.Close() // the socket is held on
	e.changes <- scopeOf(9)
	for _, g := range []*grist{one, two} {
		eventually(t, "the other scope", func() bool { s, _, _ := g.state(); return len(s.Addrs) == 1 && s.Addrs[0] == scopeOf(9).Addrs[0] })
	}
}

func TestWhenAScopeIsLostItsSocketsAreShut(t *testing.T) {
	e := newEstate(1)
	b := open(t, Jail{Scope: e}, nil)
	b.capture(t, Request{Interface: "eth0"})
	made := b.last()
	e.fail <- errors.New("netlink is gone")
	eventually(t, "the end", func() bool { _, revoked, _ := made.state(); return revoked })
	if !strings.Contains(b.log.String(), "netlink is gone") {
		t.Errorf("the log does not say why:\n%s", b.log)
	}
	// Another request looks anew.
	e.changes <- scopeOf(2)
	b.capture(t, Request{Interface: "eth0"})
	if s, revoked, _ := b.last().state(); revoked || s.Addrs[0] != scopeOf(2).Addrs[0] {
		t.Errorf("%v, revoked %v", s, revoked)
	}
}

func TestAScopeThatCannotBeHadIsARefusal(t *testing.T) {
	e := newEstate()
	<-e.changes
	e.fail <- errors.New("no such namespace")
	b := open(t, Jail{Scope: e}, nil)
	b.refused(t, Request{Interface: "eth0"}, CodeScope, "no such namespace")
}

func TestSocketsOfAServerBeforeAreTakenUpOrShut(t *testing.T) {
	b := open(t, Jail{Limits: Limits{Captives: 2}}, nil)
	pair := func(label string, bad error) *grist {
		c, err := b.mill.Captive(loader.CaptiveConfig{Label: label})
		if err != nil {
			t.Fatal(err)
		}
		g := c.(*grist)
		g.bad = bad
		b.left = append(b.left, g)
		return g
	}
	known, strange, changed, others := pair("test/web", nil), pair("test/db", nil), pair("test/web", errors.ErrUnsupported), pair("tests/web", nil)
	if err := b.Server.Adopt(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		g               *grist
		revoked, closed bool
		addresses       int
	}{{known, false, false, 1}, {strange, true, true, 0}, {changed, true, true, 1}, {others, false, false, 0}} {
		if s, revoked, closed := c.g.state(); revoked != c.revoked || closed != c.closed || len(s.Addrs) != c.addresses {
			t.Errorf("%s: revoked %v, closed %v, scope %v", c.g.cfg.Label, revoked, closed, s)
		}
	}
	others.Close()
	b.capture(t, Request{Interface: "eth0"})
	b.refused(t, Request{Interface: "eth0"}, CodeLimit, "2 captive sockets") // it counts
	known.Release()
	b.capture(t, Request{Interface: "eth0"}) // it is looked for room
	if _, _, closed := known.state(); !closed {
		t.Error("a socket that nobody has is kept")
	}
}

func TestSocketsThatAreNoMoreAreSweptAfterARest(t *testing.T) {
	s := sweeps{last: time.Now()}
	if s.now() {
		t.Error("there was nothing")
	}
	if s.due, s.buried = true, time.Now(); s.now() {
		t.Error("at once")
	}
	if s.buried = time.Now().Add(-2 * sweepRest); !s.now() || s.now() {
		t.Error("not after a rest, or twice")
	}
	if s.last = time.Now().Add(-2 * fullSweep); !s.now() || s.now() {
		t.Error("not after a long time, or twice")
	}
}

func TestAJailThatHasNothingForAWhileIsForgotten(t *testing.T) {
	e := newEstate(1)
	b := open(t, Jail{Scope: e}, nil)
	_, socket := b.capture(t, Request{Interface: "eth0"})
	b.sweep(0)
	if len(b.list()) != 1 {
		t.Error("a jail with a socket was forgotten")
	}
	socket.Close()
	eventually(t, "the end", func() bool { b.sweep(0); return len(b.list()) == 0 })
	if n := e.closed.Load(); n != 1 {
		t.Errorf("its scope was closed %d times", n)
	}
}

// The number of a process that has ended may be another's.
func TestAConnectionOfAProcessThatHasEndedGetsNothing(t *testing.T) {
	b := open(t, Jail{}, nil)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "connection")
	defer file.Close()
	b.stop() // so that the process has ended when the connection is taken
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: b.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := exec.Command("/proc/self/exe")
	client.Env = []string{"BROKER_TEST_CONNECT=" + b.path}
	client.ExtraFiles = []*os.File{file}
	if out, err := client.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p, err := peerOf(conn); err == nil {
		t.Errorf("it is taken for process %d", p.PID)
	}
}

func TestThePeerIsWhomTheKernelNames(t *testing.T) {
	seen := make(chan Peer, 1)
	resolve := func(p *Peer) (*Jail, error) {
		if f, err := os.Open(p.Namespace); err != nil {
			t.Error(err)
		} else if id, err := idOf(f); err != nil || id != p.NamespaceID {
			t.Errorf("the path leads to %v, %v", id, err)
		}
		seen <- *p
		return nil, errors.New("none of mine")
	}
	b := open(t, Jail{}, func(b *bureau) { b.Config.Resolve = resolve })
	b.refused(t, Request{Interface: "eth0"}, CodePeer, "none of mine")
	p := <-seen
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != os.Getpid() || int(p.UID) != os.Getuid() || int(p.GID) != os.Getgid() || !strings.Contains(string(cgroup), "0::"+p.Cgroup+"\n") {
		t.Errorf("%+v", p)
	}
}

func TestACloseEndsTheWaitForAnAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it never answers
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := c.Stats()
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond) // it most likely waits
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it waited for an answer from nobody: %v, want ErrClosed", err)
	}
	if _, err := c.Stats(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("asked after Close: %v, want ErrClosed", err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v, want ErrClosed", err)
	}
}

func TestWhereNobodyListensIsAnErrorThatSaysWhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Dial(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want that %s does not exist", err, path)
	}
}

// A connection may be refused as often as it likes, and its lines do not grow by it.
func TestEachRefusalIsALineOfItsOwn(t *testing.T) {
	b := open(t, Jail{Interfaces: []string{"eth0"}}, nil)
	c := b.dial(t)
	for range 3 {
		_, _, err := c.Capture(Request{Interface: "eth9"})
		wantRefusal(t, err, CodeInterface, "eth9")
	}
	refused := 0
	for line := range strings.Lines(b.log.String()) {
		if strings.Contains(line, "msg=refused") {
			refused++
			if strings.Count(line, " interface=eth9") != 1 || strings.Count(line, " jail=") != 1 {
				t.Errorf("line %d: %s", refused, line)
			}
		}
	}
	if refused != 3 {
		t.Errorf("%d lines, want 3:\n%s", refused, b.log)
	}
}
