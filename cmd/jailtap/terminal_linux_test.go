//go:build amd64 || arm64

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
	"jailtap/nsjail/jail"
)

// A console is a terminal of the host, with jailtap as its session's leader.
type console struct {
	*process
	keyboard, tty *os.File
	screen        output
	settings      unix.Termios // at the start
}

// newConsole runs a program on a terminal in a namespace.
func newConsole(t testing.TB, ns *testutil.Namespace, cmd *exec.Cmd) *console {
	t.Helper()
	keyboard, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	c := &console{process: &process{Cmd: cmd, t: t}, keyboard: closable(t, keyboard), tty: tty}
	t.Cleanup(func() {
		c.keyboard.Close()
		c.tty.Close()
	})
	if err := pty.Setsize(c.tty, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	c.settings = *c.termios(t)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.keyboard.Read(buf)
			c.screen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	cmd.Env = append(os.Environ(), "JAILTAP_TEST_MAIN=1")
	cmd.Stdin, cmd.Stderr = c.tty, c.tty
	if cmd.Stdout == nil {
		cmd.Stdout = c.tty
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return c
}

// closable is a file that can be closed while it is read.
func closable(t testing.TB, f *os.File) *os.File {
	t.Helper()
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func (c *console) termios(t testing.TB) *unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(c.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *console) press(keys string) {
	c.t.Helper()
	if _, err := c.keyboard.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) shows(words string) {
	c.t.Helper()
	for range 2000 {
		if strings.Contains(c.screen.String(), words) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.t.Fatalf("%q did not come; the screen is %q", words, c.screen.String())
}

// copies waits until cat(1) has copied a line, which the terminal has shown already.
func (c *console) copies(line string) {
	c.t.Helper()
	eventually(c.t, "a raw terminal, which shows nothing by itself", func() bool { return c.termios(c.t).Lflag&unix.ICANON == 0 })
	c.press(line + "\r")
	c.shows(line + "\r\n" + line + "\r\n")
}

// matches waits for something on the screen, and returns what is in parentheses.
func (c *console) matches(pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for range 2000 {
		if m := re.FindStringSubmatch(c.screen.String()); m != nil {
			return m[1:]
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.t.Fatalf("%q did not come; the screen is %q", pattern, c.screen.String())
	return nil
}

// isAsBefore waits until the terminal is as it was at the start.
func (c *console) isAsBefore() {
	c.t.Helper()
	eventually(c.t, "the terminal's settings", func() bool { return *c.termios(c.t) == c.settings })
}

// ends waits for the end, and checks the exit status and that the terminal is as it
// was.
func (c *console) ends(status int) {
	c.t.Helper()
	c.Wait()
	c.onlyScreenIsLeft()
	if got := c.ProcessState.ExitCode(); got != status {
		c.t.Errorf("exit status %d, want %d: %q", got, status, c.screen.String())
	}
	if s := c.termios(c.t); *s != c.settings {
		c.t.Errorf("the terminal is left as\n%+v, and was\n%+v", *s, c.settings)
	}
}

// onlyScreenIsLeft waits until all that was printed is on the screen: what is written
// now is behind it.
func (c *console) onlyScreenIsLeft() {
	c.t.Helper()
	const end = "<end>"
	if _, err := c.tty.WriteString(end); err != nil {
		c.t.Fatal(err)
	}
	c.shows(end)
}

// A ttyHost is a host with a jail that has what terminals are tried with.
type ttyHost struct{ *jailHost }

func newTTYHost(t *testing.T) ttyHost {
	t.Helper()
	h := newJailHost(t)
	for _, name := range strings.Fields("cat dd ls od seq stty tty") {
		if err := os.Symlink("busybox", filepath.Join(h.root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	h.create()
	return ttyHost{h}
}

// jexec runs jexec on a terminal.
func (h ttyHost) jexec(args ...string) *console {
	h.Helper()
	return h.console(nil, append([]string{"jexec", "-t"}, args...)...)
}

// sh runs a line of the jail's shell on a terminal.
func (h ttyHost) sh(line string) *console {
	h.Helper()
	return h.jexec(h.name, "/bin/sh", "-c", line)
}

func (h ttyHost) console(stdout *os.File, args ...string) *console {
	h.Helper()
	self, err := os.Executable()
	if err != nil {
		h.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	if stdout != nil {
		cmd.Stdout = stdout
	}
	return newConsole(h, h.ns, cmd)
}

// file is what a file of the jail has in it.
func (h ttyHost) file(name string) string {
	h.Helper()
	text, err := os.ReadFile(filepath.Join(h.root, name))
	if err != nil && !os.IsNotExist(err) {
		h.Fatal(err)
	}
	return string(text)
}

// processes are those of the jail, but for its first.
func (h ttyHost) processes() []int {
	h.Helper()
	j, err := jail.System.Find(h.name)
	if err != nil {
		h.Fatal(err)
	}
	return slices.DeleteFunc(j.Processes(), func(pid int) bool { return pid == j.PID() })
}

func TestACommandHasATerminalOfTheJail(t *testing.T) {
	h := newTTYHost(t)
	c := h.sh("tty; stty size; echo hello > /dev/tty; read line; stty size; exit 7")
	c.shows("/dev/pts/0\r\n24 80\r\nhello\r\n")
	if err := pty.Setsize(c.tty, &pty.Winsize{Rows: 33, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new size", func() bool {
		size, err := os.Open(filepath.Join("/proc", fmt.Sprint(h.processes()[0]), "fd/0"))
		if err != nil {
			t.Fatal(err)
		}
		defer size.Close()
		rows, cols, err := pty.Getsize(size)
		return err == nil && rows == 33 && cols == 99
	})
	c.press("\r")
	c.ends(7)
	if !strings.Contains(c.screen.String(), "33 99\r\n") {
		t.Errorf("%q", c.screen.String())
	}
}

func TestTheCommandOfAJailHasATerminalOfTheJail(t *testing.T) {
	h := newTTYHost(t)
	h.jailtap("jail", "-r", h.name).mustSucceed(t)
	c := h.console(nil, "jail", "-c", "name="+h.name, "path="+h.root, "vnet", "command=/bin/sh", "-c", "tty; cat; exit 6")
	c.shows("/dev/pts/0\r\n")
	c.copies("x")
	c.press("\x14")
	c.matches(`load: .* cmd: cat \d+ \[ttyin\]`)
	c.press("\x04")
	c.ends(6)
	if _, err := jail.System.Find(h.name); !errors.Is(err, jail.ErrUnknown) {
		t.Errorf("the jail is still there: %v", err)
	}
}

func TestNoProcessOfAJailHasTheHostsTerminal(t *testing.T) {
	h := newTTYHost(t)
	c := h.sh("sleep 1000 & cat; kill $!")
	c.copies("x")
	var host unix.Stat_t
	if err := unix.Fstat(int(c.tty.Fd()), &host); err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, pid := range h.processes() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		// A session has one terminal, which is that of its leader, jailtap.
		fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")"):]))
		if session := fields[4]; session == fmt.Sprint(c.Process.Pid) {
			t.Errorf("process %d is in the host's session", pid)
		}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			var st unix.Stat_t
			if err := unix.Stat(fd, &st); err != nil {
				t.Fatal(err)
			}
			if st.Dev == host.Dev && st.Ino == host.Ino {
				t.Errorf("%s is the host's terminal", fd)
			}
			looked++
		}
	}
	if looked < 9 {
		t.Errorf("looked at %d descriptors", looked)
	}
	c.press("\x04")
	c.ends(0)
}

func TestCtrlTShowsWhatIsInTheForeground(t *testing.T) {
	h := newTTYHost(t)
	c := h.sh("echo ready; cat > /tmp/got")
	c.shows("ready\r\n")
	c.press("one\r")
	eventually(t, "a line", func() bool { return h.file("tmp/got") == "one\n" })
	c.press("tw\x14o\r")
	pid := c.matches(`ready\r\none\r\ntw\r\nload: \d+\.\d\d  cmd: cat (\d+) \[ttyin\] \d+\.\d\dr 0\.\d\du 0\.\d\ds \d+% \d+k\r\no\r\n`)[0]
	if comm, err := os.ReadFile("/proc/" + pid + "/comm"); err != nil || string(comm) != "cat\n" {
		t.Errorf("process %s is %q, %v", pid, comm, err)
	}
	c.press("\x16\x14\r\x04") // quoted
	c.ends(0)
	if got := h.file("tmp/got"); got != "one\ntwo\n\x14\n" {
		t.Errorf("cat got %q", got)
	}
}

func TestCtrlTGoesToAProgramThatReadsKeys(t *testing.T) {
	h := newTTYHost(t)
	for _, mode := range []string{"-icanon", "raw", "-isig", "-iexten"} {
		c := h.sh("stty " + mode + "; echo ready; dd bs=1 count=1 2>/dev/null | od -An -tx1")
		c.shows("ready")
		c.press("\x14\n")
		c.ends(0)
		if screen := c.screen.String(); !strings.Contains(screen, " 14") || strings.Contains(screen, "load:") {
			t.Errorf("%s: %q", mode, screen)
		}
	}
}

func TestCtrlCIsForTheJail(t *testing.T) {
	h := newTTYHost(t)
	c := h.sh("trap 'echo caught; exit 5' INT; cat")
	c.copies("x")
	c.press("\x03")
	c.ends(5)
	if !strings.Contains(c.screen.String(), "caught") {
		t.Errorf("%q", c.screen.String())
	}
	c = h.jexec(h.name, "/bin/cat")
	c.copies("x")
	c.press("\x1c") // Ctrl-\
	c.ends(128 + int(unix.SIGQUIT))
}

func TestASignalEndsTheCommandAndRestoresTheTerminal(t *testing.T) {
	h := newTTYHost(t)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		c := h.jexec(h.name, "/bin/cat")
		c.copies("x")
		if *c.termios(t) == c.settings {
			t.Error("the terminal is not raw")
		}
		c.Process.Signal(sig)
		c.ends(128 + int(sig))
	}
	// What signals are for a shell that somebody types to.
	c := h.sh("trap '' TERM INT QUIT; echo ready; cat; read line")
	c.shows("ready")
	c.Process.Signal(unix.SIGTERM)
	c.ends(128 + int(unix.SIGHUP))
	// What ignores that too goes on, without a terminal.
	c = h.sh("trap '' TERM HUP; echo ready; while :; do sleep 1000; done")
	c.shows("ready")
	c.Process.Signal(unix.SIGTERM)
	c.isAsBefore()
	for _, pid := range h.processes() {
		unix.Kill(pid, unix.SIGKILL)
	}
	c.ends(128 + int(unix.SIGKILL))
}

func TestACommandOfATerminalThatGoesIsHungUp(t *testing.T) {
	h := newTTYHost(t)
	c := h.sh("trap 'echo gone > /tmp/got; exit' HUP; echo ready; read line")
	c.shows("ready")
	c.keyboard.Close()
	c.Wait()
	if got := h.file("tmp/got"); got != "gone\n" {
		t.Errorf("%q", got)
	}
	if n := len(h.processes()); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

func TestAllIsShownThatWasPrinted(t *testing.T) {
	h := newTTYHost(t)
	var all strings.Builder
	for i := range 30000 {
		fmt.Fprintf(&all, "%d\r\n", i+1)
	}
	for _, before := range []string{"", "(trap '' HUP; sleep 1000) & "} { // which keeps the terminal open
		c := h.sh(before + "seq 1 30000")
		c.ends(0)
		if got := strings.TrimSuffix(c.screen.String(), "<end>"); got != all.String() {
			t.Errorf("%q: %d bytes, want %d; the last are %q", before, len(got), all.Len(), got[max(0, len(got)-20):])
		}
	}
}

func TestAllArrivesThatIsTyped(t *testing.T) {
	h := newTTYHost(t)
	var typed, want strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&typed, "line %d\r", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	c := h.sh("cat > /tmp/got")
	c.press(typed.String() + "\x04")
	c.ends(0)
	if got := h.file("tmp/got"); got != want.String() {
		t.Errorf("%d bytes, want %d", len(got), want.Len())
	}
}

func TestAShellHasJobControl(t *testing.T) {
	h := newTTYHost(t)
	c := h.jexec(h.name, "/bin/sh", "-i")
	c.press("PS1='$((6*7))# '\r")
	c.shows("42# ")
	c.press("echo begun; cat\r")
	c.shows("begun\r\n") // the shell edits lines itself no more
	c.copies("x")
	c.press("\x14")
	c.matches(`load: .*  cmd: cat \d+ \[ttyin\]`)
	c.press("\x1a") // Ctrl-Z
	c.matches(`Stopped +cat\r\n42# `)
	c.press("fg\r")
	c.shows("fg\r\ncat\r\n")
	c.copies("y")
	c.press("\x03")
	c.shows("^C\r\n42# ")
	c.press("echo status $?\r")
	c.shows("status 130\r\n")
	c.press("exit 9\r")
	c.ends(9)
}

func TestATerminalThatWasClosedIsOpenedAgain(t *testing.T) {
	h := newTTYHost(t)
	c := h.sh("exec <&- >&- 2>&-; sleep 0.2; exec </dev/tty >/dev/tty; echo again; read line; echo $line; exec <&- >&-; exit 4")
	c.shows("again\r\n")
	c.press("typed\r")
	c.ends(4)
	c.shows("typed\r\ntyped\r\n")
}

func TestACaptureInAJailAnswersCtrlT(t *testing.T) {
	h := newTTYHost(t)
	// Its setting is all that there is to it here.
	c := h.sh("stty eol ^T; echo ready; cat | od -An -tx1")
	c.shows("ready")
	c.press("\x14")
	c.matches(`ready\r\nload: [^\r]*\r\n\^T`)
	c.press("\x04")
	c.ends(0)
	c.shows(" 14\r\n")
}

func TestWhatIsRedirectedStaysSo(t *testing.T) {
	h := newTTYHost(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c := h.console(file, "jexec", "-t", h.name, "/bin/sh", "-c", "echo data; tty; echo message >&2")
	c.ends(0)
	got, err := os.ReadFile(file.Name())
	if want := "data\n/dev/pts/0\n"; err != nil || string(got) != want || c.screen.String() != "message\r\n<end>" {
		t.Errorf("%v, %q, %q", err, got, c.screen.String())
	}
}

func TestTheTerminalIsTheUsers(t *testing.T) {
	h := newTTYHost(t)
	c := h.jexec("-u", "1001", h.name, "/bin/sh", "-c", "echo mine > $(tty); ls -ln $(tty)")
	c.ends(0)
	c.matches(`^mine\r\ncrw--w---- +1 1001 +5 `)
}

func TestATerminalThatCannotBeIsAnErrorOfOneLine(t *testing.T) {
	h := newTTYHost(t)
	h.jailtap("jexec", "-t", h.name, "/bin/tty").mustFail(t, 1, "the input device is not a TTY")
	for name, status := range map[string]int{"/bin/nothing": 127, "/tmp": 126} {
		c := h.jexec(h.name, name)
		c.ends(status)
		c.matches(`^jailtap: jail ` + h.name + `: ` + name + `: [a-z ]+\r\n<end>$`)
	}
	h.jailtap("jail", "-r", h.name).mustSucceed(t)
	if err := os.Remove(filepath.Join(h.root, "dev")); err != nil {
		t.Fatal(err)
	}
	h.create()
	c := h.jexec(h.name, "/bin/sh")
	c.ends(1)
	c.shows("it has no /dev/pts: make it with a directory dev in its root, or with mount.devfs\r\n")
}
