package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"jailtap/internal/testutil"
	"jailtap/nsjail"
)

// column is the text of a table's column, which is as wide as FreeBSD's.
func column(line, heading, name string) string {
	i := strings.Index(heading, name)
	if i < 0 || i > len(line) {
		return ""
	}
	return strings.TrimSpace(line[i:min(i+22, len(line))])
}

// listen makes a listener inside a namespace.
func listen(t *testing.T, ns *testutil.Namespace, network, address string) net.Listener {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSockstatHasFreeBSDsColumns(t *testing.T) {
	ns := testutil.NewNamespace(t)
	listen(t, ns, "tcp4", "127.0.0.1:22")
	listen(t, ns, "tcp4", "0.0.0.0:8080")
	listen(t, ns, "tcp6", "[::1]:22")
	r := jailtap(t, "sockstat -4 -l -j "+ns.Name).mustSucceed(t)
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	const heading = "USER     COMMAND    PID   FD PROTO  LOCAL ADDRESS         FOREIGN ADDRESS      "
	if len(lines) != 3 || lines[0] != heading {
		t.Fatalf("got %q", lines)
	}
	for i, want := range []string{"127.0.0.1:22", "*:8080"} {
		line := lines[i+1]
		if !strings.HasPrefix(line, "root     ") || column(line, heading, "LOCAL") != want || column(line, heading, "FOREIGN") != "*:*" ||
			!strings.Contains(line, fmt.Sprintf(" %-5d ", os.Getpid())) || !strings.Contains(line, " tcp4 ") {
			t.Errorf("got %q, want %s", line, want)
		}
	}
	if r := jailtap(t, "sockstat -q -6 -j "+ns.Name).mustSucceed(t); !strings.HasSuffix(r.stdout, "tcp6   ::1:22                *:*\n") || strings.Contains(r.stdout, "USER") {
		t.Errorf("got %q", r.stdout)
	}
}

func TestSockstatChoosesSockets(t *testing.T) {
	ns := testutil.NewNamespace(t)
	l := listen(t, ns, "tcp4", "127.0.0.1:22")
	listen(t, ns, "tcp", ":80")
	err := ns.Do(func() error {
		c, err := net.Dial("tcp4", "127.0.0.1:22")
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for flags, want := range map[string][]string{
		"-l":             {"tcp4 127.0.0.1:22 *:*", "tcp46 *:80 *:*"},
		"-6":             {"tcp46 *:80 *:*"},
		"-4 -l -p 22":    {"tcp4 127.0.0.1:22 *:*"},
		"-p 1-21,23-79":  nil,
		"-P udp":         nil,
		"-P TCP -p 80":   {"tcp46 *:80 *:*"},
		"-c -l -p 80":    {"tcp46 *:80 *:*"},
		"-u":             nil,
		"-4 -l -p 70-90": {"tcp46 *:80 *:*"},
	} {
		var rows []socketRow
		r := jailtap(t, "sockstat --json "+flags+" -j "+ns.Name).mustSucceed(t)
		if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, row := range rows {
			got = append(got, row.Proto+" "+row.Local+" "+row.Foreign)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", flags, got, want)
		}
	}
	r := jailtap(t, "sockstat --json -c -j "+ns.Name).mustSucceed(t)
	if n := strings.Count(r.stdout, `"proto"`); n != 2 || strings.Contains(r.stdout, "*:*") {
		t.Errorf("-c lists %s", r.stdout)
	}
}

func TestSockstatShowsWhatNoProcessIsKnownOf(t *testing.T) {
	var out strings.Builder
	list := []nsjail.Socket{{UID: -1, FD: -1, Protocol: "dgram"}, {UID: -1, FD: -1, Protocol: "stream", Paired: true}, {UID: -1, FD: -1, Protocol: "stream", Paired: true, PeerPath: "/run/x"}}
	if err := printSockets(&out, (&sockstatFlags{}).rows(list), true); err != nil {
		t.Fatal(err)
	}
	const want = "?        ?          ?     ?  dgram  (not connected)\n" +
		"?        ?          ?     ?  stream -> ??\n" +
		"?        ?          ?     ?  stream -> /run/x\n"
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func TestBadSockstatCommandLinesAreUsageErrors(t *testing.T) {
	for args, words := range map[string]string{
		"-p 0":      `bad port "0"`,
		"-p 9-3":    `bad port "9-3"`,
		"-p x":      `bad port "x"`,
		"-P sctp":   `unknown protocol "sctp"`,
		"-u -p 1":   "contradict one another",
		"something": "unknown command",
	} {
		jailtap(t, "sockstat "+args).mustFail(t, 2, words)
	}
	jailtap(t, "sockstat -j none-such").mustFail(t, 1, `unknown network namespace "none-such"`)
}

func TestSigInfoPrintsALine(t *testing.T) {
	testutil.NeedRoot(t)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	r := jailtap(t, fmt.Sprintf("siginfo %d", cmd.Process.Pid)).mustSucceed(t)
	if !strings.HasPrefix(r.stdout, "load: ") || !strings.Contains(r.stdout, fmt.Sprintf("  cmd: sleep %d [", cmd.Process.Pid)) || !strings.HasSuffix(r.stdout, "k\n") {
		t.Errorf("got %q", r.stdout)
	}
	jailtap(t, "siginfo").mustFail(t, 2, "accepts 1 arg")
	jailtap(t, "siginfo x").mustFail(t, 2, `bad process "x"`)
	jailtap(t, "siginfo 2147483647").mustFail(t, 1, "unknown process 2147483647")
}
