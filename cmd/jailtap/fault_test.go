package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// write makes a file for a test.
func write(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFaultsOfFilesAreOneLineAndLeaveNothing(t *testing.T) {
	mix := mixFile(t, "mix.pcap")
	whole, err := os.ReadFile(mix)
	if err != nil {
		t.Fatal(err)
	}
	empty := ""
	for line, words := range map[string]string{
		"-r " + mix + " tcp and and":                                                       `bad expression "tcp and and": can't parse filter expression: syntax error`,
		"-r " + mix + " arp) or (ip6":                                                      `bad expression "arp) or (ip6"`,
		"-r " + mix + " inbound":                                                           "only a live capture knows",
		"-r " + mix + " -F /nonexistent":                                                   "open /nonexistent: no such file",
		"-r " + mix + " -F " + write(t, empty):                                             "is empty",
		"-r " + mix + " --program " + write(t, "hello"):                                    `line 1: "hello"`,
		"-r " + mix + " --program " + write(t, "1\n21 0 0 0"):                              "invalid program: instruction 0",
		"-r " + mix + " --program " + write(t, "4097\n"+strings.Repeat("6 0 0 1\n", 4097)): "it has 4097 instructions; linux takes 4096",
		"-r " + mix + " --program " + write(t, strings.Repeat("#", maxFilterFile+1)):       "longer than 1048576 bytes",
		"-r " + mix + " --netns nosuchnetns":                                               `unknown network namespace "nosuchnetns"`,
		"-r " + mix + " --pid 2147483647":                                                  "unknown process 2147483647",
		"-r " + mix + " -a @/nonexistent":                                                  "open /nonexistent: no such file",
		"-r /nonexistent":                                                                  "open /nonexistent: no such file",
		"-r " + write(t, empty):                                                            "bad capture file: at byte 0: the file is empty",
		"-r " + write(t, "hello world"):                                                    "is the start of neither",
		"-r " + write(t, string(whole[:30])):                                               "bad capture file: at byte 24: the file ends 10 bytes before",
		"-r " + mix + " -w " + mix:                                                         "is to be read: write another file",
		"-r " + mix + " -w /nonexistent/f":                                                 "open /nonexistent/f: no such file",
		"-r " + mix + " -w /dev":                                                           "open /dev: is a directory",
		"-r " + mix + " -w /dev/full":                                                      "writing /dev/full: no space left on device",
		"-r " + mix + " --stats /nonexistent/f":                                            "open /nonexistent/f: no such file",
	} {
		dir := t.TempDir()
		if !strings.Contains(line, " -w ") {
			line += " -w " + dir + "/out.pcapng"
		}
		if !strings.Contains(line, "--netns") && !strings.Contains(line, "--pid") {
			line = "-a 10.0.0.1 " + line
		}
		if !strings.Contains(line, "--stats") {
			line += " --stats " + dir + "/stats"
		}
		jailtap(t, "capture "+line).mustFail(t, 1, words)
		mustBeEmpty(t, dir)
	}
	if now, err := os.ReadFile(mix); err != nil || string(now) != string(whole) {
		t.Error("the input has changed")
	}
}

func TestTooManyAddressesForAClassicProgramAreCounted(t *testing.T) {
	var addrs strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&addrs, "10.%d.%d.%d\n", i%7, i/250, i*2%250)
	}
	jailtap(t, "filter -a @"+write(t, addrs.String())).mustFail(t, 1, "of 3000 fit")
}

func TestADamagedFileGivesThePacketsBeforeTheDamage(t *testing.T) {
	whole, err := os.ReadFile(mixFile(t, "mix.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir() + "/out.pcap"
	r := jailtap(t, "capture --no-scope -w "+out+" -r "+write(t, string(whole[:len(whole)-1])))
	if r.status != 1 || !strings.Contains(r.stderr, "the file ends 1 bytes before") || !strings.Contains(r.stderr, "7 packets captured") {
		t.Errorf("status %d, %s", r.status, r.stderr)
	}
	if n := len(packetsIn(t, out)); n != 7 {
		t.Errorf("%d packets", n)
	}
}

// closedPipe is what `| head` becomes when it has had enough.
type closedPipe struct{ room int }

func (p *closedPipe) Write(b []byte) (int, error) {
	if p.room -= len(b); p.room < 0 {
		return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
	}
	return len(b), nil
}

func TestAReaderThatHasHadEnoughIsNoError(t *testing.T) {
	file := mixFile(t, "mix.pcap")
	for _, line := range []string{"-l", "-U -w -", "-w -", ""} {
		args := strings.Fields("capture -a 10.0.0.1 -r " + file + " " + line)
		var stderr strings.Builder
		status := run(t.Context(), args, strings.NewReader(""), &closedPipe{room: 300}, &stderr)
		if status != 0 || strings.Contains(stderr.String(), "jailtap: ") || !strings.Contains(stderr.String(), "captured\n") {
			t.Errorf("%q: status %d, %s", line, status, stderr.String())
		}
	}
}
