//go:build amd64 || arm64

package jail

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

var yards atomic.Int64

// A yard is a registry of a test's own.
type yard struct {
	*testing.T
	Registry
}

// newYard checks at the end that nothing is left.
func newYard(t *testing.T) *yard {
	t.Helper()
	testutil.NeedRoot(t)
	root, err := cgroupRoot()
	if err != nil {
		testutil.Skip(t, "%v", err)
	}
	name := fmt.Sprintf("jtt-jails-%d-%d", os.Getpid(), yards.Add(1))
	y := &yard{t, Registry{Dir: filepath.Join(t.TempDir(), "jails"), Cgroup: name}}
	t.Cleanup(func() {
		entries, _ := os.ReadDir(y.Dir)
		for _, e := range entries {
			t.Errorf("%s is left", e.Name())
			if jail, ok := strings.CutSuffix(e.Name(), ".json"); ok {
				t.Log(y.Remove(t.Context(), jail, Starter{}))
			}
		}
		if err := os.Remove(filepath.Join(root, name)); err != nil && !os.IsNotExist(err) {
			t.Errorf("cgroups are left: %v", err)
		}
	})
	return y
}

// tree is a root directory with busybox(1) and users.
func tree(t testing.TB) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		testutil.Skip(t, "busybox is not installed (Debian: busybox-static)")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "dev", "etc", "proc", "tmp", "var/log", "home"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "bin/busybox"), string(program), 0o755)
	write(t, filepath.Join(dir, "etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:1001:1002::/home:/bin/sh\n", 0o644)
	write(t, filepath.Join(dir, "etc/group"), "root:x:0:\nlogs:x:1003:mail,web\n", 0o644)
	for _, tool := range strings.Fields("sh cat ls id echo sleep true false mount ps hostname nc ip chroot mknod kill ping unshare stat tty umount dd rm seq mkdir wc") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", tool)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// must makes a jail that stays.
func (y *yard) must(spec Spec) *Jail {
	y.Helper()
	spec.Persist = true
	if spec.Network == "" {
		spec.Network = NoNetwork
	}
	j, err := y.Create(y.Context(), spec, Starter{})
	if err != nil {
		y.Fatal(err)
	}
	y.Cleanup(func() { y.remove(spec.Name) })
	return j
}

func (y *yard) remove(name string) {
	y.Helper()
	if err := y.Remove(y.Context(), name, Starter{}); err != nil {
		y.Error(err)
	}
}

// run runs a line of the jail's shell, and returns what it prints.
func (j *Jail) run(t testing.TB, line string, u User) (out string, exit int) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	p, err := j.Start(Command{Argv: []string{"sh", "-c", line}, Env: []string{"PATH=/bin"}, User: u, Stdout: write, Stderr: write})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.ReadFrom(read)
	return strings.TrimSpace(b.String()), status(p.Wait())
}

// says checks what a line prints.
func (j *Jail) says(t testing.TB, line, want string) {
	t.Helper()
	if out, _ := j.run(t, line, User{}); out != want {
		t.Errorf("%s: got %q, want %q", line, out, want)
	}
}

// fails checks that a line does not succeed.
func (j *Jail) fails(t testing.TB, line string) {
	t.Helper()
	if out, exit := j.run(t, line, User{}); exit == 0 {
		t.Errorf("%s succeeds: %s", line, out)
	}
}

// namespace is a process's namespace of a kind.
func namespace(t testing.TB, pid int, kind string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// gone waits until no process is there.
func gone(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	pollThrough(fd, 5*time.Second)
	return ended(fd)
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o666) }
