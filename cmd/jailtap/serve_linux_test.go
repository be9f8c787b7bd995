package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
	"jailtap/loader/broker"
)

// A service is jailtap serve with guards of its own, so that tests which run at the
// same time have others.
type service struct {
	*process
	dir, socket, pins, cgroup string
}

var servicesMade int

// newService is one that is not running. At the end of the test it is, once more,
// and leaves nothing.
func newService(t testing.TB) *service {
	t.Helper()
	testutil.NeedRoot(t)
	dir, err := os.MkdirTemp("", "jailtap-test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	servicesMade++
	name := fmt.Sprintf("jailtap-serve-%d-%d", os.Getpid(), servicesMade)
	d := &service{dir: dir, socket: filepath.Join(dir, "s"), pins: "/sys/fs/bpf/" + name, cgroup: filepath.Join(unified(t), name, "captives")}
	delegated := filepath.Dir(d.cgroup) // as systemd makes it
	if err := os.Mkdir(delegated, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer os.RemoveAll(dir)
		defer os.Remove(delegated)
		if _, err := os.Stat(d.pins); err == nil { // the last sockets were just closed
			time.Sleep(500 * time.Millisecond)
			d.start(t, "-a 10.0.0.1")
			d.end(syscall.SIGTERM).mustSucceed(t)
		}
		for _, path := range []string{d.pins, d.cgroup} {
			if entries, err := os.ReadDir(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left: %v, %v", path, err, entries)
			}
		}
	})
	return d
}

// unified is where cgroup2 is mounted.
func unified(t testing.TB) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			return f[1]
		}
	}
	testutil.Skip(t, "cgroup2 is not mounted")
	return ""
}

// start returns when the daemon serves.
func (d *service) start(t testing.TB, flags string) {
	t.Helper()
	d.process = start(t, fmt.Sprintf("serve --socket %s --pins %s --cgroup %s %s", d.socket, d.pins, d.cgroup, flags))
	d.endAtLast(t)
	d.waitFor(&d.stderr, "msg=ready")
}

// endAtLast ends the daemon at the end of the test, unless that was done.
func (d *service) endAtLast(t testing.TB) {
	p := d.process
	t.Cleanup(func() {
		if p.ProcessState == nil {
			p.end(syscall.SIGTERM).mustSucceed(t)
		}
	})
}

func startService(t testing.TB, flags string) *service {
	t.Helper()
	d := newService(t)
	d.start(t, flags)
	return d
}

// capture runs the command capture as nobody in a namespace.
func (d *service) capture(t testing.TB, ns *testutil.Namespace, flags string) *process {
	t.Helper()
	return inside(t, ns, nobody, exec.Command("/proc/self/exe", strings.Fields("capture --broker "+d.socket+" "+flags)...))
}

func TestWithoutPrivilegesTheBrokerOpensTheCapture(t *testing.T) {
	d := startService(t, "")
	here, there := lab(t)
	here.AddAddr(t, "tap", "10.0.0.1/24")
	program := filepath.Join(d.dir, "arp")
	if err := os.WriteFile(program, []byte("4\n40 0 0 12\n21 0 1 2054\n6 0 0 262144\n6 0 0 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags string
		cut   int
		want  []int
	}{
		"everything":    {"-i tap", 0, []int{0, 2, 3, 7}},
		"an expression": {"-i tap udp", 0, []int{0, 7}},
		"immediate":     {"-i tap --immediate -B 512 tcp or arp", 0, []int{2, 3}},
		"any":           {"-i any", -6, []int{0, 2, 3, 7}},
		"a program":     {"-i tap --program " + program, 0, []int{3}},
		"a small ring":  {"-i tap -B 128 -s 64", 0, []int{0, 2, 3, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			out, stats := filepath.Join(d.dir, name+".pcapng"), filepath.Join(d.dir, name+".json")
			out, stats = strings.ReplaceAll(out, " ", "-"), strings.ReplaceAll(stats, " ", "-")
			p := d.capture(t, here, fmt.Sprintf("-w %s --stats %s %s", out, stats, c.flags))
			p.waitFor(&p.stderr, "; engine ebpf (it is a captive socket)")
			there.Inject(t, "out", mix()...)
			r := p.end(syscall.SIGTERM).mustSucceed(t)
			packets := packetsIn(t, out)
			if len(packets) != len(c.want) {
				t.Fatalf("%d packets, want %d: %s", len(packets), len(c.want), r.stderr)
			}
			for i, n := range c.want {
				if packets[i].Len != len(mix()[n])-c.cut {
					t.Errorf("packet %d has %d bytes", i, packets[i].Len)
				}
			}
			if !strings.Contains(r.stderr, "scope: network namespace ") || !strings.Contains(r.stderr, " 10.0.0.1, policy full") {
				t.Errorf("it does not say whose packets: %s", r.stderr)
			}
			text, err := os.ReadFile(stats)
			if err != nil || !strings.Contains(string(text), `"in_scope":4`) || !strings.Contains(string(text), fmt.Sprintf(`"matched":%d`, len(c.want))) {
				t.Errorf("%v %s", err, text)
			}
		})
	}
	p := d.capture(t, here, "-i tap -c 1")
	p.waitFor(&p.stderr, "; engine ")
	there.Inject(t, "out", mix()...)
	if r := p.end(0).mustSucceed(t); !strings.Contains(r.stdout, "10.0.0.1.4000 > 10.0.0.2.4001") {
		t.Errorf("%q", r.stdout)
	}
}

// The first line of TestWithoutPrivilegeTheMissingCapabilityIsNamed is what there
// is without a broker.
func TestTheBrokerAtTheUsualPlaceIsFoundByItself(t *testing.T) {
	if c, err := broker.Dial(""); err == nil {
		c.Close()
		testutil.Skip(t, "%s is in use", broker.DefaultSocket)
	}
	d := newService(t)
	t.Cleanup(func() { os.Remove(filepath.Dir(broker.DefaultSocket)) }) // fails if somebody needs it
	d.socket = broker.DefaultSocket
	d.start(t, "")
	here, there := lab(t)
	here.AddAddr(t, "tap", "10.0.0.1/24")
	p := inside(t, here, nobody, exec.Command("/proc/self/exe", "capture", "-i", "tap", "-c", "1"))
	p.waitFor(&p.stderr, "; engine ")
	there.Inject(t, "out", mix()...)
	p.end(0).mustSucceed(t)
	p = inside(t, here, nobody, exec.Command("/proc/self/exe", "capture", "-i", "tap", "-a", "10.0.0.1"))
	p.end(0).mustFail(t, 2, "--address: the broker at /run/jailtap/jailtap.sock is asked, and decides whose packets may be seen")
}

func TestTheBrokerDecidesWhatOthersFlagsWould(t *testing.T) {
	for line, words := range map[string]string{
		"capture -i lo --broker /nowhere --netns x":     "--netns: the broker at /nowhere is asked, and decides",
		"capture -i lo --broker /nowhere --no-scope":    "--no-scope: the broker",
		"capture -i lo --broker /nowhere --engine cbpf": "--engine: the broker",
		"capture -i lo --broker /nowhere --in-netns x":  "--in-netns: the broker",
		"capture --broker /nowhere":                     "say where to capture",
		"serve --jails f -a 10.0.0.1":                   "--jails and --address contradict",
		"serve --mode 999":                              `bad mode "999"`,
		"serve --socket=":                               "say where to listen",
		"serve --metrics-anywhere":                      "--metrics, which is missing",
		"serve now":                                     `unknown command "now"`,
	} {
		jailtap(t, line).mustFail(t, 2, words)
	}
	jailtap(t, "capture -i lo --broker /nowhere").mustFail(t, 1, "/nowhere: connect: no such file or directory")
}

func TestAProcessInTheHostsNamespaceIsOfNoJail(t *testing.T) {
	d := startService(t, "")
	asNobody(t, "capture -i lo --broker "+d.socket).mustFail(t, 1, "is in the host's network namespace, which is no jail: say what is its with jailtap serve --jails FILE or -a ADDRESS (peer)")
	d.waitFor(&d.stderr, "msg=refused pid=")
}

// It is root there, and may make as many interfaces as it likes.
func TestAProcessInAUserNamespaceOfItsOwnIsOfNoJail(t *testing.T) {
	d := startService(t, "-a 10.0.0.1 --mode 0666")
	cmd := exec.Command("/proc/self/exe", "capture", "--broker", d.socket, "-i", "lo")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: nobody, Size: 1}},
	}
	startCommand(t, cmd, nil).end(0).mustFail(t, 1, "belongs to another user namespace, whose root needs no broker there (peer)")
}

func TestTheJailsOfAFileAreToldByCgroupUserAndNamespace(t *testing.T) {
	here, there := lab(t)
	d := newService(t)
	d.start(t, "--jails "+write(t, fmt.Sprintf(`
jails:
- name: elsewhere
  match: {netns: %s}
  addresses: [10.0.0.2]
- name: cgrouped
  match: {cgroup: %s}
  addresses: [10.0.0.2]
- name: web
  match: {uid: 65534, netns: %s}
  addresses: [10.0.0.1]
  policy: classic
  interfaces: [tap]
  limits: {captives: 1}
`, there.Name, strings.TrimPrefix(d.cgroup, unified(t)), here.Name)))
	p := d.capture(t, here, "-i tap -c 2 udp or tcp")
	p.waitFor(&p.stderr, "scope: jail web 10.0.0.1, policy classic")
	q := d.capture(t, here, "-i tap")
	q.end(0).mustFail(t, 1, "jail web has 1 captive sockets, and no more at once (limit)")
	q = d.capture(t, here, "-i any")
	q.end(0).mustFail(t, 1, `interface "any" is not for jail web`)
	there.Inject(t, "out", mix()...)
	p.end(0).mustSucceed(t)

	q = inside(t, here, 65533, exec.Command("/proc/self/exe", "capture", "--broker", d.socket, "-i", "tap"))
	q.end(0).mustFail(t, 1, "is of no jail of the file of --jails (peer)")
	q = d.capture(t, there, "-i out -c 1")
	q.waitFor(&q.stderr, "scope: jail elsewhere 10.0.0.2, policy full")
	q.end(syscall.SIGTERM)

	group := filepath.Join(d.cgroup, "below")
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(group)
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe", "capture", "--broker", d.socket, "-i", "tap")
	here.Do(func() error {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		q = startCommand(t, cmd, nil)
		return nil
	})
	q.waitFor(&q.stderr, "scope: jail cgrouped 10.0.0.2")
	q.end(syscall.SIGTERM)
}

func TestTheSocketOfOneJailIsForItsGroup(t *testing.T) {
	here, _ := lab(t)
	d := startService(t, "-a 10.0.0.7 --group 65533")
	p := d.capture(t, here, "-i tap")
	p.end(0).mustFail(t, 1, "permission denied")
	p = inside(t, here, 65533, exec.Command("/proc/self/exe", "capture", "--broker", d.socket, "-i", "tap"))
	p.waitFor(&p.stderr, "scope: addresses 10.0.0.7, policy full")
	p.end(syscall.SIGTERM).mustSucceed(t)
}

func TestASocketFollowsTheJailWhenItsConnectionHasEnded(t *testing.T) {
	here, there := lab(t)
	here.AddAddr(t, "tap", "10.0.0.1/24")
	d := startService(t, "")
	c := startClient(t, here, d.socket)
	c.wants("ask 1", "held 1, asked 1, refused 0")
	moved := testutil.UDP4(noisy, db, ownFrame) // 10.0.0.4
	there.Inject(t, "out", moved, testutil.UDP4(web, db, ownFrame))
	eventually(t, "the jail's frame", func() bool { return strings.Contains(c.tell("count"), "own 1,") })
	here.AddAddr(t, "tap", "10.0.0.4/24")
	d.waitFor(&d.stderr, "scope changed")
	there.Inject(t, "out", moved)
	eventually(t, "the frame of the new address", func() bool { return strings.Contains(c.tell("count"), "own 2,") })
}

func TestWhatIsAskedForAndClosedLeavesNothing(t *testing.T) {
	here, _ := lab(t)
	here.AddAddr(t, "tap", "10.0.0.1/24")
	d := startService(t, "--jails "+write(t, "jails: [{name: web, match: {uid: 65534}, addresses: [10.0.0.1], limits: {rate: 1000}}]"))
	c := startClient(t, here, d.socket)
	c.wants("ask 2", "held 2") // all that there is once
	c.tell("close")
	rested := func() bool {
		return strings.Count(d.stderr.String(), "captive gone") == strings.Count(d.stderr.String(), "captive given")
	}
	eventually(t, "rest", rested)
	time.Sleep(6 * time.Second) // until it has swept
	before := d.holds(t)
	for range 4 { // the kernel frees programs late: not too many at once
		c.wants("ask 50", "held 50")
		if during := d.holds(t); len(during) < len(before)+50 {
			t.Fatalf("with 50 captives the daemon has %d files and pins, before it had %d", len(during), len(before))
		}
		c.tell("close")
		eventually(t, "rest", rested)
	}
	var after []string
	eventually(t, "what there was before", func() bool { after = d.holds(t); return slices.Equal(after, before) })
	if n := strings.Count(d.stderr.String(), "captive given"); n != 202 {
		t.Errorf("%d were given", n)
	}
}

// holds are the kinds of files that the daemon has open, and the pins.
func (d *service) holds(t testing.TB) (list []string) {
	t.Helper()
	time.Sleep(100 * time.Millisecond) // for connections to end
	dir := fmt.Sprintf("/proc/%d/fd", d.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, _ := os.Readlink(filepath.Join(dir, e.Name()))
		name, _, _ = strings.Cut(name, ":[") // the number of a socket or a pipe
		list = append(list, name)
	}
	pins, err := os.ReadDir(d.pins)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range pins {
		name, _, _ := strings.Cut(e.Name(), "-")
		list = append(list, "pin "+name)
	}
	slices.Sort(list)
	return list
}

func TestExpressionsAreCompiledByAProcessWithoutPrivileges(t *testing.T) {
	here, _ := lab(t)
	d := startService(t, "-a 10.0.0.1 --mode 0666")
	p := d.capture(t, here, "-i tap udp port domain")
	p.waitFor(&p.stderr, "; engine ")
	status, netns := compilerOf(t, d)
	for _, line := range []string{"Uid:\t65534\t65534\t65534\t65534\n", "Groups:\t \n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n"} {
		if !strings.Contains(status, line) {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
	if own, _ := os.Readlink("/proc/self/ns/net"); netns == own || netns == "" {
		t.Errorf("it is in network namespace %q", netns)
	}
	p.end(syscall.SIGTERM).mustSucceed(t)
	p = d.capture(t, here, "-i tap host www.example.com")
	p.end(0).mustFail(t, 1, "www.example.com")
	p = d.capture(t, here, "-i tap udp port or")
	p.end(0).mustFail(t, 1, "syntax error")
}

// compilerOf is the child of a daemon.
func compilerOf(t testing.TB, d *service) (status, netns string) {
	t.Helper()
	pids, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", d.Process.Pid))
	children := strings.Fields(string(pids))
	if tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.Process.Pid)); len(children) == 0 {
		for _, task := range tasks {
			pids, err = os.ReadFile(task)
			children = append(children, strings.Fields(string(pids))...)
		}
	}
	if err != nil || len(children) != 1 {
		t.Fatalf("children %q, %v; want one", children, err)
	}
	text, err := os.ReadFile("/proc/" + children[0] + "/status")
	if err != nil {
		t.Fatal(err)
	}
	netns, _ = os.Readlink("/proc/" + children[0] + "/ns/net")
	return string(text), netns
}

func TestTheDaemonKeepsTheCapabilitiesThatItNeeds(t *testing.T) {
	d := startService(t, "-a 10.0.0.1")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var want uint64
	for c := range (&serveFlags{cgroup: d.cgroup}).capabilities() {
		want |= 1 << c
	}
	if !strings.Contains(string(status), fmt.Sprintf("CapEff:\t%016x\nCapBnd:\t%016[1]x\n", want)) {
		t.Errorf("want %x in\n%s", want, status)
	}
}

func TestTheUnitFileHasTheCapabilitiesThatTheDaemonKeeps(t *testing.T) {
	text, err := os.ReadFile("../../docs/systemd/jailtap.service")
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{
		unix.CAP_NET_RAW: "CAP_NET_RAW", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE",
		unix.CAP_SETUID: "CAP_SETUID", unix.CAP_SETGID: "CAP_SETGID", unix.CAP_KILL: "CAP_KILL",
	}
	_, list, _ := strings.Cut(string(text), "\nCapabilityBoundingSet=")
	list, _, _ = strings.Cut(list, "\n")
	keeps := (&serveFlags{cgroup: "/below/the/service"}).capabilities()
	for c := range keeps {
		if !slices.Contains(strings.Fields(list), names[c]) {
			t.Errorf("the unit file lacks capability %d, %s", c, names[c])
		}
	}
	if len(strings.Fields(list)) != len(keeps) {
		t.Errorf("the unit file has %s", list)
	}
}

func TestContainerRuntimesAreServedAtASocketOfTheirOwn(t *testing.T) {
	d := newService(t)
	socket := filepath.Join(d.dir, "oci")
	d.start(t, "-a 10.0.0.1 --oci-socket "+socket)
	if st, err := os.Stat(socket); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", st, err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "{}")
	conn.Close()
	d.waitFor(&d.stderr, "container runtime refused")
}

func TestPrometheusGetsItsCountsOnThisHost(t *testing.T) {
	here, there := lab(t)
	here.AddAddr(t, "tap", "10.0.0.1/24")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	d := startService(t, "--metrics "+address+" --jails "+write(t, "jails: [{name: web, match: {uid: 65534}, addresses: [10.0.0.1]}]"))
	p := d.capture(t, here, "-i tap -c 3 -B 256 not arp")
	p.waitFor(&p.stderr, "; engine ")
	there.Inject(t, "out", mix()...)
	p.end(0).mustSucceed(t)
	q := inside(t, here, 65533, exec.Command("/proc/self/exe", "capture", "--broker", d.socket, "-i", "tap"))
	q.end(0)
	r, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`jailtap_given_total{jail="web"} 1`, `jailtap_packets_in_scope_total{jail="web"} 4`,
		`jailtap_packets_matched_total{jail="web"} 3`, `jailtap_refused_total{code="peer",jail=""} 1`,
		"# HELP jailtap_captives Captive sockets that there are.\n# TYPE jailtap_captives gauge", "# TYPE jailtap_refused_total counter",
	} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	if l, err := listenMetrics("0.0.0.0:0", false); err == nil {
		l.Close()
		t.Error("other hosts may ask")
	}
}

func TestSystemdIsToldAndItsSocketTaken(t *testing.T) {
	here, _ := lab(t)
	d := newService(t)
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(d.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(d.dir, "activated"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	os.Chmod(filepath.Join(d.dir, "activated"), 0o666)

	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`,
		fmt.Sprintf("/proc/%d/exe", os.Getpid()), "serve", "-a", "10.0.0.7", "--socket", d.socket, "--pins", d.pins, "--cgroup", d.cgroup)
	cmd.ExtraFiles = []*os.File{file}
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("WATCHDOG_USEC", "100000")
	t.Setenv("NOTIFY_SOCKET", told.LocalAddr().String())
	d.process = startCommand(t, cmd, nil)
	d.endAtLast(t)
	hears := func(word string) {
		t.Helper()
		buf := make([]byte, 256)
		told.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			n, err := told.Read(buf)
			if err != nil {
				t.Fatalf("%s was not told: %v\n%s", word, err, d.stderr.String())
			}
			if string(buf[:n]) == word {
				return
			}
		}
	}
	hears("READY=1")
	hears("WATCHDOG=1")
	p := inside(t, here, nobody, exec.Command("/proc/self/exe", "capture", "--broker", filepath.Join(d.dir, "activated"), "-i", "tap"))
	p.waitFor(&p.stderr, "scope: addresses 10.0.0.7")
	p.end(syscall.SIGTERM)
	if _, err := os.Stat(d.socket); err == nil {
		t.Error("it made another socket")
	}
	d.Process.Signal(syscall.SIGTERM)
	hears("STOPPING=1")
	d.end(0).mustSucceed(t)
}

func TestTwoDaemonsDoNotTakeOneSocket(t *testing.T) {
	d := startService(t, "-a 10.0.0.1")
	jailtap2 := start(t, fmt.Sprintf("serve --socket %s --pins %s --cgroup %s -a 10.0.0.1", d.socket, d.pins, d.cgroup))
	jailtap2.end(0).mustFail(t, 1, "address already in use")
	d.end(syscall.SIGKILL)
	d.start(t, "-a 10.0.0.1") // in place of the abandoned socket
}
