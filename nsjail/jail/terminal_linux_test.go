//go:build amd64 || arm64

package jail

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// readTerminal is what is printed on a terminal until nobody has it open.
func readTerminal(t *testing.T, master *os.File) string {
	t.Helper()
	text, err := io.ReadAll(master)
	if !errors.Is(err, unix.EIO) {
		t.Fatalf("%q, %v", text, err)
	}
	return string(text)
}

func TestATerminalOfAJailIsItsOwn(t *testing.T) {
	y := newYard(t)
	a, b := y.must(Spec{Name: "a", Path: tree(t)}), y.must(Spec{Name: "b", Path: tree(t)})
	for _, j := range []*Jail{a, b} {
		for _, want := range []string{"/dev/pts/0", "/dev/pts/1"} { // the first one is held
			master, err := j.OpenTerminal()
			if err != nil {
				t.Fatal(err)
			}
			defer master.Close()
			p, err := j.Start(Command{Argv: []string{"sh", "-c", "tty; stat -c '%u %g %a' $(tty); echo controlling >/dev/tty; ls /proc/$$/fd; true"},
				Env: []string{"PATH=/bin"}, User: User{1001, 1002, nil}, Terminal: master})
			if err != nil {
				t.Fatal(err)
			}
			got, exit := readTerminal(t, master), status(p.Wait())
			if want := want + "\r\n1001 5 620\r\ncontrolling\r\n0  1  2\r\n"; got != want || exit != 0 {
				t.Errorf("%q, %d, want %q", got, exit, want)
			}
		}
	}
}

func TestClosingATerminalEndsItsSession(t *testing.T) {
	y := newYard(t)
	j := y.must(Spec{Name: "a", Path: tree(t)})
	master, err := j.OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	p, err := j.Start(Command{Argv: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}, Terminal: master})
	if err != nil {
		t.Fatal(err)
	}
	master.SetReadDeadline(time.Now())
	if _, err := master.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read with a deadline: %v", err)
	}
	master.Close()
	if got := status(p.Wait()); got != 128+int(unix.SIGHUP) {
		t.Errorf("status %d", got)
	}
}

func TestWhatIsNoDevptsIsNotOpened(t *testing.T) {
	y := newYard(t)
	bare, fake := tree(t), tree(t)
	if err := os.Remove(filepath.Join(bare, "dev")); err != nil {
		t.Fatal(err)
	}
	dev := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dev, "pts"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(filepath.Join(dev, "pts/ptmx")); err != nil {
		t.Fatal(err)
	}
	linked := t.TempDir()
	if err := os.Symlink("/proc/self/fd", filepath.Join(linked, "pts")); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []Spec{
		{Name: "bare", Path: bare},
		{Name: "fake", Path: fake, Mounts: []Mount{{Source: dev, Target: "/dev", Type: "nullfs"}}},
		{Name: "linked", Path: tree(t), Mounts: []Mount{{Source: linked, Target: "/dev", Type: "nullfs"}}},
	} {
		j := y.must(spec)
		if f, err := j.OpenTerminal(); err == nil || !strings.Contains(err.Error(), "jail "+spec.Name+": make a terminal: it has no /dev/pts") {
			t.Errorf("%s: %v %v", spec.Name, f, err)
		}
	}
	gone := y.must(Spec{Name: "gone", Path: tree(t)})
	y.remove("gone")
	if _, err := gone.OpenTerminal(); !errors.Is(err, ErrUnknown) {
		t.Errorf("of a jail that is no more: %v", err)
	}
}
