package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"jailtap/internal/testutil"
)

// A process is the program running for itself.
type process struct {
	*exec.Cmd
	t              testing.TB
	stdout, stderr output
}

// output can be looked at while it is being written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs a command line in a process, which is the test binary again.
func start(t testing.TB, commandLine string) *process {
	t.Helper()
	return startCommand(t, exec.Command("/proc/self/exe", strings.Fields(commandLine)...), nil)
}

// startCommand has standard output go to a file, if there is one.
func startCommand(t testing.TB, cmd *exec.Cmd, stdout *os.File) *process {
	t.Helper()
	p := &process{Cmd: cmd, t: t}
	p.Env = append(os.Environ(), "JAILTAP_TEST_MAIN=1")
	p.Cmd.Stdout, p.Cmd.Stderr = &p.stdout, &p.stderr
	if stdout != nil {
		p.Cmd.Stdout = stdout
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill() })
	return p
}

// startCapture returns when packets are being captured.
func startCapture(t testing.TB, flags string) *process {
	t.Helper()
	p := start(t, "capture "+flags)
	p.waitFor(&p.stderr, "; engine ")
	return p
}

// waitFor waits until there are words in an output.
func (p *process) waitFor(o *output, words string) {
	p.t.Helper()
	for range 2000 {
		if strings.Contains(o.String(), words) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	p.t.Fatalf("%q did not come; stdout:\n%s\nstderr:\n%s", words, p.stdout.String(), p.stderr.String())
}

// end sends a signal, if it is not 0, and waits.
func (p *process) end(sig syscall.Signal) result {
	p.t.Helper()
	if sig != 0 {
		if err := p.Process.Signal(sig); err != nil {
			p.t.Fatal(err)
		}
	}
	p.Wait()
	return result{p.ProcessState.ExitCode(), p.stdout.String(), p.stderr.String()}
}

// lab is two namespaces with a veth pair: whatever is sent from the one is
// seen on tap in the other.
func lab(t testing.TB) (here, there *testutil.Namespace) {
	here, there = testutil.NewNamespace(t), testutil.NewNamespace(t)
	here.VethTo(t, there, "tap", "out")
	return here, there
}

func TestALiveCaptureHasTheScopesPacketsAndNoOthers(t *testing.T) {
	here, there := lab(t)
	for _, engine := range []string{"cbpf", "ebpf"} {
		for _, name := range []string{"out.pcapng", "out.pcap"} {
			out, stats := filepath.Join(t.TempDir(), name), filepath.Join(t.TempDir(), "stats")
			p := startCapture(t, fmt.Sprintf("-i tap --in-netns %s -a 10.0.0.1 --engine %s -w %s --stats %s", here.Name, engine, out, stats))
			there.Inject(t, "out", mix()...)
			r := p.end(syscall.SIGTERM).mustSucceed(t)

			packets := packetsIn(t, out)
			if len(packets) != 4 {
				t.Fatalf("%s: %d packets: %s", engine, len(packets), r.stderr)
			}
			for i, n := range []int{0, 2, 3, 7} {
				if string(packets[i].Data) != string(mix()[n]) {
					t.Errorf("%s: packet %d is %x", engine, i, packets[i].Data)
				}
			}
			want := "listening on tap, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n" +
				"scope: addresses 10.0.0.1, policy full; engine " + engine + " (it was asked for)\n" + countsOf4
			if r.stderr != want || r.stdout != "" {
				t.Errorf("%s want %s", r.stderr, want)
			}
			text, err := os.ReadFile(stats)
			if err != nil || !strings.HasPrefix(string(text), `{"received":4,"captured":4,"dropped":0,"engine":"`+engine+`","seen":`) {
				t.Errorf("%v %s", err, text)
			}
		}
	}
}

// Two captures of a hub, in processes of their own, have what they would have without.
func TestCapturesThatShareAHubHaveTheirScopesPacketsAndNoOthers(t *testing.T) {
	here, there := lab(t)
	out := []string{filepath.Join(t.TempDir(), "1.pcap"), filepath.Join(t.TempDir(), "2.pcap")}
	var captures []*process
	for i, addr := range []string{"10.0.0.1", "10.0.0.4"} {
		captures = append(captures, startCapture(t, fmt.Sprintf("-i tap --in-netns %s -a %s --hub always -w %s", here.Name, addr, out[i])))
	}
	there.Inject(t, "out", mix()...)
	for i, want := range [][]int{{0, 2, 3, 7}, nil} {
		r := captures[i].end(syscall.SIGTERM).mustSucceed(t)
		if !strings.Contains(r.stderr, "engine ebpf (it shares the interface's hub)") {
			t.Errorf("%s", r.stderr)
		}
		packets := packetsIn(t, out[i])
		if want == nil { // those of the other are what its own socket would have
			want = wantedBy(t, here, there, "10.0.0.4")
		}
		if len(packets) != len(want) {
			t.Fatalf("capture %d: %d packets, want %d: %s", i, len(packets), len(want), r.stderr)
		}
		for j, n := range want {
			if string(packets[j].Data) != string(mix()[n]) {
				t.Errorf("capture %d: packet %d is %x", i, j, packets[j].Data)
			}
		}
	}
}

// wantedBy are the numbers of those of the mix that a capture with a socket of its own has.
func wantedBy(t *testing.T, here, there *testutil.Namespace, addr string) (list []int) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "own.pcap")
	p := startCapture(t, fmt.Sprintf("-i tap --in-netns %s -a %s -w %s", here.Name, addr, out))
	there.Inject(t, "out", mix()...)
	p.end(syscall.SIGTERM).mustSucceed(t)
	for _, packet := range packetsIn(t, out) {
		list = append(list, slices.IndexFunc(mix(), func(frame []byte) bool { return string(frame) == string(packet.Data) }))
	}
	return list
}

func TestALiveCaptureIsPrinted(t *testing.T) {
	here, there := lab(t)
	p := startCapture(t, "-i any --in-netns "+here.Name+" -a 10.0.0.1 -c 2 udp")
	there.Inject(t, "out", mix()...)
	r := p.end(0).mustSucceed(t)
	lines := strings.Split(r.stdout, "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[0], " tap   P   IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 5") ||
		!strings.HasSuffix(lines[1], " tap   B   IP 10.0.0.3.4002 > 10.0.0.4.4003: UDP, length 3") {
		t.Errorf("%s", r.stdout)
	}
}

func TestTcpdumpReadsTheStream(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		testutil.Skip(t, "tcpdump is not there")
	}
	here, there := lab(t)
	p := startCapture(t, "-i tap --in-netns "+here.Name+" -a 10.0.0.1 -w - -c 4")
	there.Inject(t, "out", mix()...)
	r := p.end(0).mustSucceed(t)
	read := exec.Command(tcpdump, "-nr", "-")
	read.Stdin = strings.NewReader(r.stdout)
	if out, err := read.Output(); err != nil || bytes.Count(out, []byte("\n")) != 4 {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestSignalsAreHeard(t *testing.T) {
	here, there := lab(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		p := startCapture(t, "-i tap --in-netns "+here.Name+" -a 10.0.0.1")
		there.Inject(t, "out", mix()[:2]...)
		p.waitFor(&p.stdout, "UDP, length 5\n")
		if err := p.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		const one = "1 packet captured\n1 packet received by filter\n0 packets dropped by kernel\n"
		p.waitFor(&p.stderr, one)
		there.Inject(t, "out", mix()[:2]...)
		r := p.end(sig).mustSucceed(t)
		if !strings.HasSuffix(r.stderr, one+"2 packets captured\n2 packets received by filter\n0 packets dropped by kernel\n") {
			t.Errorf("%s", r.stderr)
		}
	}
}

func TestADurationEndsACapture(t *testing.T) {
	here, _ := lab(t)
	p := startCapture(t, "-i tap --in-netns "+here.Name+" -a 10.0.0.1 --duration 0.1")
	if r := p.end(0).mustSucceed(t); !strings.Contains(r.stderr, "0 packets captured\n") {
		t.Errorf("%s", r.stderr)
	}
}

func TestACaptureFollowsTheJailsAddresses(t *testing.T) {
	here, there := lab(t)
	there.AddAddr(t, "out", "10.0.0.1/24")
	for _, engine := range []string{"cbpf", "ebpf"} {
		p := startCapture(t, "-i tap -l --in-netns "+here.Name+" --netns "+there.Name+" --engine "+engine+" udp and ip")
		addr := fmt.Sprintf("10.0.7.%d", len(engine)+int(engine[0]))
		from := netip.AddrPortFrom(netip.MustParseAddr(addr), 7)
		frame := testutil.UDP4(from, db, []byte("moved"))
		there.Inject(t, "out", frame)
		there.AddAddr(t, "out", addr+"/24")
		p.waitFor(&p.stderr, "jailtap: scope is now namespace "+there.Name+" ")
		there.Inject(t, "out", frame)
		p.waitFor(&p.stdout, " IP "+addr+".7 > 10.0.0.2.4001: UDP, length 5\n")
		if r := p.end(syscall.SIGINT).mustSucceed(t); strings.Count(r.stdout, "\n") != 1 || !strings.Contains(r.stderr, addr) {
			t.Errorf("%s: %s\n%s", engine, r.stdout, r.stderr)
		}
	}
}

func TestWithoutAScopeThereIsALoudWarning(t *testing.T) {
	here, there := lab(t)
	p := startCapture(t, "-i tap --no-scope -c 8 --in-netns "+here.Name)
	there.Inject(t, "out", mix()...)
	r := p.end(0).mustSucceed(t)
	if strings.Count(r.stdout, "\n") != 8 || !strings.HasPrefix(r.stderr, "jailtap: WARNING: --no-scope: this capture is NOT limited") {
		t.Errorf("%s\n%s", r.stdout, r.stderr)
	}
}

func TestAnInterfaceThatGoesEndsTheCapture(t *testing.T) {
	here, there := lab(t)
	out := t.TempDir() + "/out.pcapng"
	p := startCapture(t, "-i tap --in-netns "+here.Name+" -a 10.0.0.1 -w "+out)
	there.Inject(t, "out", mix()...)
	err := there.Do(func() error {
		link, err := netlink.LinkByName("out")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	if err != nil {
		t.Fatal(err)
	}
	r := p.end(0)
	if r.status != 1 || !strings.Contains(r.stderr, "4 packets captured") || !strings.Contains(r.stderr, "jailtap: capture on tap: the interface is gone") {
		t.Errorf("status %d, %s", r.status, r.stderr)
	}
	if n := len(packetsIn(t, out)); n != 4 {
		t.Errorf("%d packets in the file", n)
	}
}

func TestFaultsOfLiveCapturesAreOneLineAndLeaveNothing(t *testing.T) {
	here, there := lab(t) // there has no addresses
	var addrs strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&addrs, "10.%d.%d.%d\n", i%7, i/250, i*2%250)
	}
	many := write(t, addrs.String())
	for line, words := range map[string]string{
		"-i tap -a 10.0.0.1 tcp and and":                          `bad expression "tcp and and": can't parse filter expression: syntax error`,
		"-i tup -a 10.0.0.1":                                      `unknown interface "tup": known are lo, tap, any`,
		"-i tap --netns " + there.Name:                            "namespace " + there.Name + " has no addresses",
		"-i tap --netns /dev/null":                                "is not a network namespace",
		"-i tap --engine cbpf -a @" + many:                        "too many addresses",
		"-i tap -a 10.0.0.1 -w /nonexistent/f":                    "open /nonexistent/f: no such file",
		"-i tap -a 10.0.0.1 -w /dev/full":                         "writing /dev/full: no space left on device",
		"-i tap -a 10.0.0.1 --stats /nonexistent/f":               "open /nonexistent/f: no such file",
		"-i tap -a 10.0.0.1 --program " + write(t, "1\n21 0 0 0"): "invalid program: instruction 0",
	} {
		dir := t.TempDir()
		if !strings.Contains(line, "-w") {
			line += " -w " + dir + "/out"
		}
		if !strings.Contains(line, "--stats") {
			line += " --stats " + dir + "/stats"
		}
		jailtap(t, "capture --in-netns "+here.Name+" "+line).mustFail(t, 1, words)
		mustBeEmpty(t, dir)
	}
	jailtap(t, "capture -i tap -a 10.0.0.1 --in-netns nosuchnetns").mustFail(t, 1, `unknown network namespace "nosuchnetns"`)
	if r := jailtap(t, "capture -i tap --engine cbpf --in-netns "+here.Name+" -a @"+many); !strings.Contains(r.stderr, "use --engine ebpf") {
		t.Errorf("%s", r.stderr)
	}
}

// asNobody runs a command line without any privilege.
func asNobody(t *testing.T, commandLine string) result {
	t.Helper()
	testutil.NeedRoot(t)
	dir, err := os.MkdirTemp("", "jailtap-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := dir + "/jailtap"
	for _, err := range []error{os.WriteFile(exe, binary, 0o755), os.Chmod(exe, 0o755), os.Chmod(dir, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe, strings.Fields(commandLine)...)
	cmd.Dir = "/"
	cmd.Env = []string{"JAILTAP_TEST_MAIN=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Run()
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestWithoutPrivilegeTheMissingCapabilityIsNamed(t *testing.T) {
	asNobody(t, "capture -i lo -a 10.0.0.1").mustFail(t, 1, "it needs CAP_NET_RAW; run with sudo, or grant it: sudo setcap cap_net_raw+ep /")
	asNobody(t, "capture -i lo --no-scope").mustFail(t, 1, "needs root")
	here, there := lab(t)
	there.AddAddr(t, "out", "10.0.0.1/24")
	asNobody(t, "capture -i lo --netns "+there.Name).mustFail(t, 1, "CAP_SYS_ADMIN")
	asNobody(t, "capture -i tap -a 10.0.0.1 --in-netns "+here.Name).mustFail(t, 1, "CAP_SYS_ADMIN")
}

func TestAFileSizeLimitLeavesWholePackets(t *testing.T) {
	here, there := lab(t)
	out := t.TempDir() + "/out.pcapng"
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Fields("capture -U -i tap --in-netns " + here.Name + " -a 10.0.0.1 -w " + out)
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -f 8; exec "$0" "$@"`, exe}, args...)...)
	p := startCommand(t, cmd, nil)
	p.waitFor(&p.stderr, "; engine ")
	frame := testutil.UDP4(web, db, make([]byte, 1000))
	there.Inject(t, "out", frame, frame, frame, frame, frame, frame, frame, frame, frame, frame)
	r := p.end(0)
	if want := "jailtap: writing " + out + ": file too large\n"; r.status != 1 || !strings.HasSuffix(r.stderr, want) {
		t.Errorf("status %d, %s", r.status, r.stderr)
	}
	if n := len(packetsIn(t, out)); n < 3 || n > 7 {
		t.Errorf("%d packets", n)
	}
}

func TestAClosedStandardOutputEndsTheCapture(t *testing.T) {
	here, there := lab(t)
	read, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startCommand(t, exec.Command("/proc/self/exe", strings.Fields("capture -l -i tap -a 10.0.0.1 --in-netns "+here.Name)...), written)
	read.Close()
	written.Close()
	p.waitFor(&p.stderr, "; engine ")
	there.Inject(t, "out", mix()...)
	if r := p.end(0).mustSucceed(t); !strings.Contains(r.stderr, "captured\n") || strings.Contains(r.stderr, "jailtap:") {
		t.Errorf("%s", r.stderr)
	}
}

func TestAFullDiskIsAnErrorAndLeavesWholePackets(t *testing.T) {
	testutil.NeedRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		testutil.Skip(t, "mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	big := bigFile(t, 100)
	for _, name := range []string{"full.pcapng", "full.pcap"} {
		out := dir + "/" + name
		r := jailtap(t, "capture -a 10.0.0.1 -r "+big+" -w "+out)
		if want := "jailtap: writing " + out + ": no space left on device\n"; r.status != 1 || !strings.HasSuffix(r.stderr, want) {
			t.Errorf("status %d, %s", r.status, r.stderr)
		}
		if n := len(packetsIn(t, out)); n < 10 || n > 17 {
			t.Errorf("%d packets of 60 kB in 1 MiB", n)
		}
		os.Remove(out)
	}
}
