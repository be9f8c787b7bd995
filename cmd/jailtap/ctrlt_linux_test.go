//go:build amd64 || arm64

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

const (
	oneCaptured = "jailtap: 1 packet captured, 1 packet received by filter, 0 packets dropped by kernel\r\n"
	twoCaptured = "jailtap: 2 packets captured, 2 packets received by filter, 0 packets dropped by kernel\r\n"
)

// captureOn runs a line of the shell on a terminal, in which $capture captures from
// tap and prints.
func captureOn(t *testing.T, here *testutil.Namespace, line string) *console {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return newConsole(t, here, exec.Command("/bin/sh", "-c", "capture='"+self+" capture -l -i tap -a 10.0.0.1'; "+line))
}

// hears waits until Ctrl-T ends lines.
func (c *console) hears() {
	c.t.Helper()
	eventually(c.t, "the setting", func() bool { return c.termios(c.t).Cc[unix.VEOL] == ctrlT })
}

func TestACaptureAnswersCtrlTAndGoesOn(t *testing.T) {
	here, there := lab(t)
	c := captureOn(t, here, "exec $capture")
	c.hears()
	there.Inject(t, "out", mix()[:2]...)
	asked := c.asks("\x14", "^T\r\n"+oneCaptured)
	c.press("a line\r")
	there.Inject(t, "out", mix()[:2]...)
	asked += c.asks("begun\x14", "begun^T\r\n"+twoCaptured)
	c.press("\x03")
	c.ends(0)
	if n := strings.Count(c.screen.String(), " captured, "); n != asked {
		t.Errorf("asked %d times, it was answered %d times: %q", asked, n, c.screen.String())
	}
}

// asks presses keys that are answered until the answer is the one that is wanted, since
// a packet is counted when it has been printed. It returns how often that was.
func (c *console) asks(keys, want string) (asked int) {
	c.t.Helper()
	eventually(c.t, want, func() bool {
		answers := strings.Count(c.screen.String(), " captured, ")
		c.press(keys)
		asked++
		eventually(c.t, "an answer", func() bool { return strings.Count(c.screen.String(), " dropped by kernel\r\n") > answers })
		return strings.Contains(c.screen.String(), want)
	})
	return asked
}

func TestTypeAheadReachesTheShell(t *testing.T) {
	here, there := lab(t)
	c := captureOn(t, here, "$capture -c 1; read line; echo \"the shell got $line\"")
	c.hears()
	c.press("ahead")
	c.shows("ahead")
	there.Inject(t, "out", mix()[:2]...)
	c.shows("1 packet captured\r\n")
	c.isAsBefore()
	c.press("\r")
	c.ends(0)
	c.shows("the shell got ahead\r\n")
}

func TestACaptureLeavesATerminalOfOthersAlone(t *testing.T) {
	here, _ := lab(t)
	// In the background it would be stopped.
	c := captureOn(t, here, "set -m; $capture & read line; echo \"the shell got $line\"; fg")
	c.shows("; engine ")
	c.press("one\x14\r")
	c.shows("the shell got one\x14\r\n")
	c.hears() // now that it is in the foreground
	c.press("\x14")
	c.shows("jailtap: 0 packets captured, ")
	c.press("\x03")
	c.ends(0)

	// And from a pager it would take keys.
	c = captureOn(t, here, "exec 3<&0; $capture <&3 & read line; stty -icanon -echo min 0 time 2; echo quiet; cat >/dev/null; stty min 1 time 0; echo ready; dd bs=1 count=3 2>/dev/null; kill $!; wait; stty icanon echo")
	c.hears()
	c.shows("; engine ")
	for !strings.Contains(c.screen.String(), "quiet") { // one line is the shell's
		c.press("\r")
		time.Sleep(20 * time.Millisecond)
	}
	c.shows("ready") // cat has read those that were too many, until for 0.2 s there was none
	for _, key := range []string{"x", "\x14", "y"} {
		c.press(key)
	}
	c.shows("0 packets captured\r\n")
	if screen := c.screen.String(); !strings.Contains(screen, "x\x14y") || strings.Contains(screen, " captured, ") {
		t.Errorf("%q", screen)
	}
	c.ends(0)
}
