package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

// saidToTerminal runs a command line with a terminal of 80 columns for all that it says, and
// tells what the terminal was sent.
func saidToTerminal(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "JAILTAP_TEST_MAIN=1")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 25, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	said, err := io.ReadAll(tty)
	if err != nil && !errors.Is(err, syscall.EIO) { // which is how a pty says that it was left
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return string(said)
}

var shownBar = regexp.MustCompile(`^(\S+) \[(#*)( *)\] (\d+) of (\d+)$`)

func TestABarGrowsOnATerminalAndGoesAwayBeforeTheClosingLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	said := saidToTerminal(t, "world", "build", "--profile", "minimal", "-o", dir)
	bars, closing, found := strings.Cut(said, "\r\x1b[K")
	if !found || !strings.HasPrefix(closing, "jailtap: "+dir+": ") || !strings.HasSuffix(closing, "ms\r\n") {
		t.Errorf("behind the bar: %q", closing)
	}
	shown := strings.Split(bars, "\r")[1:]
	if len(shown) < barWidth/2 || !strings.HasPrefix(bars, "\r") {
		t.Fatalf("%d bars: %q", len(shown), bars)
	}
	last := -1
	for _, text := range shown {
		m := shownBar.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no bar: %q", text)
		}
		done, _ := strconv.Atoi(m[4])
		of, _ := strconv.Atoi(m[5])
		if len(m[2]) != done*barWidth/of || len(m[2])+len(m[3]) != barWidth || len(m[2]) <= last || len([]rune(text)) > 80 {
			t.Errorf("after %d: %q", last, text)
		}
		last = len(m[2])
	}
	if last != barWidth {
		t.Errorf("the last bar: %q", shown[len(shown)-1])
	}
}

func TestThereIsNoBarInAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "web")
	if r := jailtap(t, "world build --bin cat -o "+dir).mustSucceed(t); strings.ContainsAny(r.stderr, "\r\x1b") {
		t.Errorf("%q", r.stderr)
	}
}
