//go:build amd64 || arm64

package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"jailtap/internal/capfile"
	"jailtap/internal/testutil"
)

// startRun runs a command under the agent. The last words are given as they are.
func startRun(t testing.TB, commandLine string, last ...string) *process {
	t.Helper()
	testutil.NeedRoot(t)
	return startCommand(t, exec.Command("/proc/self/exe", append(strings.Fields("run "+commandLine), last...)...), nil)
}

func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		testutil.Skip(t, "%s is not there", name)
	}
}

// What unmodified tcpdump writes of a mix of frames, with the agent around it.
func TestTcpdumpUnderTheAgentSeesTheScopesPacketsAndNoOthers(t *testing.T) {
	needTool(t, "tcpdump")
	here, there := lab(t)
	for name, c := range map[string]struct {
		who, what string
		cut       int // bytes in front of the network header, of the file's frames
		want      []int
	}{
		"everything":              {"", "-i tap", 14, []int{0, 2, 3, 7}},
		"an expression":           {"", "-i tap udp", 14, []int{0, 7}},
		"not promiscuous":         {"", "-p -i tap arp", 14, []int{3}},
		"any":                     {"", "-i any", 20, []int{0, 2, 3, 7}},
		"any and an expression":   {"", "-i any tcp", 20, []int{2}},
		"another user":            {"--user nobody", "-i tap", 14, []int{0, 2, 3, 7}},
		"what is not in the mix":  {"", "-i tap udp or icmp", 14, []int{0, 7}},
		"others' addresses":       {"", "-i tap host 10.0.0.4", 14, []int{7}},
		"a VLAN that is not ours": {"", "-i tap udp or vlan 7", 14, []int{0, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "jailtap-test")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			os.Chmod(dir, 0o777)
			out := filepath.Join(dir, "out.pcap")
			p := startRun(t, fmt.Sprintf("%s -a 10.0.0.1 --in-netns %s -- tcpdump -n -w %s -c %d %s", c.who, here.Name, out, len(c.want), c.what))
			p.waitFor(&p.stderr, "listening on")
			there.Inject(t, "out", mix()...)
			r := p.end(0).mustSucceed(t)
			packets := packetsIn(t, out)
			if len(packets) != len(c.want) {
				t.Fatalf("%d packets: %s", len(packets), r.stderr)
			}
			for i, n := range c.want {
				if !bytes.Equal(packets[i].Data[c.cut:], mix()[n][14:]) {
					t.Errorf("packet %d is %x", i, packets[i].Data)
				}
			}
			if strings.Contains(r.stderr, "Warning") || !strings.Contains(r.stderr, "\n0 packets dropped by kernel") {
				t.Errorf("%s", r.stderr)
			}
		})
	}
}

func TestASignalEndsTcpdumpAsItShould(t *testing.T) {
	needTool(t, "tcpdump")
	here, there := lab(t)
	out := filepath.Join(t.TempDir(), "out.pcap")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := startRun(t, "-a 10.0.0.1 --in-netns "+here.Name+" -- tcpdump -n -U -i tap -w "+out)
		p.waitFor(&p.stderr, "listening on")
		there.Inject(t, "out", mix()...)
		for range 1000 { // until all is in the file
			if st, err := os.Stat(out); err == nil && st.Size() == 24+4*16+int64(len(mix()[0])+len(mix()[2])+len(mix()[3])+len(mix()[7])) {
				break
			}
			syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 5000})
		}
		if r := p.end(sig).mustSucceed(t); !strings.Contains(r.stderr, "4 packets captured") {
			t.Errorf("%s", r.stderr)
		}
		if n := len(packetsIn(t, out)); n != 4 {
			t.Errorf("%d packets", n)
		}
	}
}

// A socket of all interfaces from the start, then bound; and it cannot send.
const pythonProgram = `
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("tap", 3))
print("ready", flush=True)
for i in range(4):
    print(s.recv(2000).hex(), flush=True)
frame = bytes.fromhex("ffffffffffff02000000000108000102030405060708090a0b0c0d0e0f")
for how in (lambda: s.send(frame), lambda: s.sendto(frame, ("tap", 3)), lambda: s.sendmsg([frame])):
    try:
        how()
        print("sent")
    except OSError as e:
        print("not sent", flush=True)
`

func TestAPythonProgramUnderTheAgentReceivesAndDoesNotSend(t *testing.T) {
	needTool(t, "python3")
	here, there := lab(t)
	observer := startCapture(t, "--no-scope --direction in -i out --in-netns "+there.Name)
	p := startRun(t, "-a 10.0.0.1 --in-netns "+here.Name+" -- python3 -c", pythonProgram)
	p.waitFor(&p.stdout, "ready\n")
	there.Inject(t, "out", mix()...)
	r := p.end(0).mustSucceed(t)
	lines := strings.Split(r.stdout, "\n")
	if len(lines) != 9 || strings.Count(r.stdout, "\nnot sent\n") == 0 || strings.Contains(r.stdout, "\nsent") {
		t.Fatalf("%s", r.stdout)
	}
	for i, n := range []int{0, 2, 3, 7} {
		if lines[1+i] != hex.EncodeToString(mix()[n]) {
			t.Errorf("frame %d: %s", i, lines[1+i])
		}
	}
	if seen := observer.end(syscall.SIGINT).mustSucceed(t); !strings.Contains(seen.stderr, "\n0 packets captured\n") {
		t.Errorf("%s", seen.stdout)
	}
}

func TestTheScopeOfARunFollowsTheJail(t *testing.T) {
	needTool(t, "tcpdump")
	here, there := lab(t)
	there.AddAddr(t, "out", "10.0.0.1/24")
	p := startRun(t, "--netns "+there.Name+" --in-netns "+here.Name+" -- tcpdump -lni tap udp and ip")
	p.waitFor(&p.stderr, "listening on")
	frame := testutil.UDP4(netip.MustParseAddrPort("10.0.7.7:7"), db, []byte("moved"))
	there.Inject(t, "out", frame)
	there.AddAddr(t, "out", "10.0.7.7/24")
	for range 400 { // until the scope has followed
		there.Inject(t, "out", frame)
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 20000})
		if strings.Contains(p.stdout.String(), "10.0.7.7.7 > 10.0.0.2.4001") {
			break
		}
	}
	if r := p.end(syscall.SIGTERM).mustSucceed(t); !strings.Contains(r.stdout, "10.0.7.7.7 > 10.0.0.2.4001") {
		t.Errorf("%s\n%s", r.stdout, r.stderr)
	}
}

func TestARunHasTheExitStatusOfItsCommand(t *testing.T) {
	testutil.NeedRoot(t)
	text := write(t, "neither a program nor a script")
	for _, c := range []struct {
		command, arg string
		status       int
		stderr       string
	}{
		{"sh -c", "exit 7", 7, ""},
		{"sh -c", "kill -9 $$", 137, ""},
		{"no-such-command", "x", 127, "jailtap: no-such-command: executable file not found in $PATH\n"},
		{"/etc", "x", 126, "jailtap: /etc: is a directory\n"},
		{text, "x", 126, "jailtap: " + text + ": permission denied\n"},
	} {
		r := startRun(t, "-a 10.0.0.1 -- "+c.command, c.arg).end(0)
		if r.status != c.status || r.stderr != c.stderr {
			t.Errorf("%s %s: %+v", c.command, c.arg, r)
		}
	}
}

func TestARunNeedsToKnowWhatAndAsWhom(t *testing.T) {
	for line, words := range map[string]string{
		"run -a 10.0.0.1": "say what to run",
		"run -- true":     "no scope: say whose packets may be seen",
		"run -a 10.0.0.1 --user nobody-knows -- true": `unknown user "nobody-knows"`,
		"run -a 10.0.0.1 --user 1:nobody-knows true":  `unknown group "nobody-knows"`,
	} {
		jailtap(t, line).mustFail(t, 2, words)
	}
	jailtap(t, "run -a 10.0.0.1 --in-netns nosuchnetns -- true").mustFail(t, 1, `unknown network namespace "nosuchnetns"`)
}

func TestWhoCalledSudoIsWhoTheCommandRunsAs(t *testing.T) {
	testutil.NeedRoot(t)
	t.Setenv("SUDO_UID", "65534")
	t.Setenv("SUDO_GID", "65533")
	for who, want := range map[string]string{"": "65534 65533", "--user 12345": "12345 12345", "--user root": "0 0", "--user 7:8": "7 8"} {
		r := startRun(t, who+" -a 10.0.0.1 -- sh -c", "echo $(id -u) $(id -g)").end(0).mustSucceed(t)
		if r.stdout != want+"\n" {
			t.Errorf("%q: %q", who, r.stdout)
		}
	}
}

// Wireshark's programs capture with dumpcap, which libpcap's users all resemble.
func TestWiresharksProgramsUnderTheAgentSeeTheScopesPacketsAndNoOthers(t *testing.T) {
	here, there := lab(t)
	for name, c := range map[string]struct{ command, ready string }{
		"dumpcap": {"dumpcap -q -i tap -c 4 -w %s", "File:"},
		"tshark":  {"tshark -n -q -i tap -c 4 -w %s", "Capturing on"},
	} {
		t.Run(name, func(t *testing.T) {
			needTool(t, name)
			out := filepath.Join(t.TempDir(), "out.pcapng")
			p := startRun(t, "-a 10.0.0.1 --in-netns "+here.Name+" -- "+fmt.Sprintf(c.command, out))
			p.waitFor(&p.stderr, c.ready)
			ended := make(chan result)
			go func() { ended <- p.end(0) }()
			for { // they say that they capture before they do
				select {
				case r := <-ended:
					r.mustSucceed(t)
					wantOwn(t, packetsIn(t, out))
					return
				case <-time.After(20 * time.Millisecond):
					there.Inject(t, "out", mix()...)
				}
			}
		})
	}
}

// wantOwn checks that there are four packets, all of the mix and in scope.
func wantOwn(t *testing.T, packets []capfile.Packet) {
	t.Helper()
	if len(packets) != 4 {
		t.Errorf("%d packets, want 4", len(packets))
	}
	for _, p := range packets {
		isOwn := slices.ContainsFunc([]int{0, 2, 3, 7}, func(n int) bool { return bytes.Equal(p.Data, mix()[n]) })
		if !isOwn {
			t.Errorf("not of the scope: %x", p.Data)
		}
	}
}

// nmap's capture side: what it sends goes nowhere, but it sees who answers.
func TestNmapUnderTheAgentSeesAnswers(t *testing.T) {
	needTool(t, "nmap")
	here, there := lab(t)
	here.AddAddr(t, "tap", "10.0.0.1/24")
	p := startRun(t, "-a 10.0.0.1 --in-netns "+here.Name+" -- nmap --privileged --send-eth -sn -n -e tap 10.0.0.9")
	mac := macOf(t, here, "tap")
	answer := testutil.ARP(testutil.ARPReply, netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.1"), mac)
	copy(answer[14+18:], mac[:]) // the target's address in ARP, too
	ended := make(chan result)
	go func() { ended <- p.end(0) }()
	for {
		select {
		case r := <-ended:
			if r.mustSucceed(t); !strings.Contains(r.stdout, "Host is up") || !strings.Contains(r.stderr, "No buffer space available") {
				t.Errorf("%s\n%s", r.stdout, r.stderr)
			}
			return
		case <-time.After(20 * time.Millisecond):
			there.Inject(t, "out", answer)
		}
	}
}

func macOf(t *testing.T, ns *testutil.Namespace, ifname string) (mac testutil.MAC) {
	t.Helper()
	err := ns.Do(func() error {
		link, err := net.InterfaceByName(ifname)
		if err == nil {
			mac = testutil.MAC(link.HardwareAddr)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}
