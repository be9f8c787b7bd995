package nsjail

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"jailtap/internal/testutil"
)

// patience is how long is waited for what must come.
const patience = 10 * time.Second

var lineForm = regexp.MustCompile(`^load: \d+\.\d\d  cmd: (\S+) (\d+) \[(\S+)\] \d+\.\d\dr \d+\.\d\du \d+\.\d\ds (\d+)% \d+k$`)

// lineOf waits until a process's line has a state, and returns it: command,
// pid, state, and percent.
func lineOf(t *testing.T, pid int, state string) []string {
	t.Helper()
	var line string
	for end := time.Now().Add(patience); time.Now().Before(end); {
		var err error
		if line, err = SigInfo(pid); err != nil {
			t.Fatal(err)
		}
		m := lineForm.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("the line is not FreeBSD's: %q", line)
		}
		if m[3] == state {
			return m[1:]
		}
	}
	t.Fatalf("the line is %q, want [%s]", line, state)
	return nil
}

// started runs a program, and what it starts itself, until the test ends.
func started(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	return cmd
}

func TestWhatAProcessWaitsForIsTold(t *testing.T) {
	testutil.NeedRoot(t) // for /proc/PID/syscall
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	reader := exec.Command("cat")
	reader.Stdin = r
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := syscall.SetNonblock(int(file.Fd()), false); err != nil {
		t.Fatal(err)
	}
	listener := exec.Command("cat")
	listener.Stdin = file
	for state, cmd := range map[string]*exec.Cmd{
		"nanslp": exec.Command("sleep", "1000"),
		"piperd": reader,
		"sbwait": listener,
		"wait":   exec.Command("sh", "-c", "sleep 1000; true"),
	} {
		cmd = started(t, cmd)
		if m := lineOf(t, cmd.Process.Pid, state); m[1] != strconv.Itoa(cmd.Process.Pid) {
			t.Errorf("pid %s, want %d", m[1], cmd.Process.Pid)
		}
	}
}

func TestABusyProcessRunsAndAStoppedOneIsSuspended(t *testing.T) {
	cmd := started(t, exec.Command("sh", "-c", "while :; do :; done"))
	m := lineOf(t, cmd.Process.Pid, "running")
	if percent, _ := strconv.Atoi(m[3]); percent == 0 {
		t.Error("a busy loop uses 0% CPU")
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	lineOf(t, cmd.Process.Pid, "suspended")
}

func TestAProcessThatHasEndedIsAZombieOrUnknown(t *testing.T) {
	cmd := started(t, exec.Command("true"))
	lineOf(t, cmd.Process.Pid, "zombie")
	cmd.Wait()
	for _, pid := range []int{cmd.Process.Pid, -1, 0} {
		if _, err := SigInfo(pid); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("process %d: %v", pid, err)
		}
	}
}

func TestTheForegroundProcessOfATerminalIsFound(t *testing.T) {
	cmd := exec.Command("cat")
	tty, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid, err := Foreground(tty)
	if err != nil || pid != cmd.Process.Pid {
		t.Fatalf("got %d, %v, want %d", pid, err, cmd.Process.Pid)
	}
	if m := lineOf(t, pid, "ttyin"); m[0] != "cat" {
		t.Errorf("command %q", m[0])
	}
	line, err := TerminalInfo(tty)
	if m := lineForm.FindStringSubmatch(line); err != nil || m == nil || m[1] != "cat" || m[3] != "ttyin" {
		t.Errorf("the terminal's line is %q, %v", line, err)
	}
}

func TestWhoRunsIsToldBeforeWhoWaits(t *testing.T) {
	// Without job control all are in one process group.
	cmd := exec.Command("sh", "-c", "(while :; do :; done) & echo $!; sleep 1000 & wait")
	tty, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	defer cmd.Wait()
	defer syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	buf := make([]byte, 100)
	n, err := tty.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	busy, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for end := time.Now().Add(patience); pid != busy && time.Now().Before(end); { // the shell runs too at first
		if pid, err = Foreground(tty); err != nil {
			t.Fatal(err)
		}
	}
	if pid != busy {
		t.Errorf("got %d, want %d", pid, busy)
	}
}

func TestATerminalWithoutProcessesHasNoForeground(t *testing.T) {
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	defer tty.Close()
	if pid, err := Foreground(ptmx); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %d, %v", pid, err)
	}
	if line, err := TerminalInfo(ptmx); err != nil || !regexp.MustCompile(`^load: \d+\.\d\d no foreground process group$`).MatchString(line) {
		t.Errorf("got %q, %v", line, err)
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := Foreground(file); !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("of /dev/null: %v", err)
	}
}

func TestACommandWithBracketsIsRead(t *testing.T) {
	st, err := parseStat("12 (a) R (b) S 1 7 7 0 -1 4194304 1 2 3 4 150 25 0 0 20 0 1 0 300 5000 10 18446744073709551615 1")
	if err != nil || st.command != "a) R (b" || st.state != 'S' || st.group != 7 ||
		st.user != 1500*time.Millisecond || st.system != 250*time.Millisecond || st.start != 3*time.Second || st.resident != int64(10*os.Getpagesize()/1024) {
		t.Errorf("got %+v, %v", st, err)
	}
	for _, text := range []string{"", "12 a", "12 (a)", ")(", "1 (a) S 1 2"} {
		if _, err := parseStat(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
