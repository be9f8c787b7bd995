//go:build amd64 || arm64

package jail

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAJailIsListedFoundAndRemovedWithAllThatIsItsOwn(t *testing.T) {
	y := newYard(t)
	a := y.must(Spec{Name: "a", Path: tree(t), Hostname: "a.example"})
	b := y.must(Spec{Name: "b", Path: tree(t)})
	list, err := y.List()
	if err != nil || len(list) != 2 || list[0].Spec().Name != "a" || list[0].Spec().JID != 1 || list[1].Spec().JID != 2 {
		t.Fatalf("%v %v", list, err)
	}
	for _, name := range []string{"b", "2"} {
		if j, err := y.Find(name); err != nil || j.PID() != b.PID() {
			t.Errorf("%s: %v %v", name, j, err)
		}
	}
	if _, err := y.Find("c"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "there are a, b") {
		t.Errorf("%v", err)
	}
	a.says(t, "hostname", "a.example")
	b.says(t, "hostname", "b")
	for _, kind := range []string{"mnt", "uts", "ipc", "pid", "net", "cgroup"} {
		if ours := namespace(t, os.Getpid(), kind); namespace(t, a.PID(), kind) == ours || namespace(t, a.PID(), kind) == namespace(t, b.PID(), kind) {
			t.Errorf("namespace %s is not the jail's own", kind)
		}
	}
	pid := a.PID()
	y.remove("a")
	y.remove("a") // there is none any more
	if _, err := os.Stat(a.rec.Cgroup); !gone(pid) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("process %d or the cgroup is left: %v", pid, err)
	}
}

func TestCommandsInAJailHaveWhatTheFirstProcessHas(t *testing.T) {
	y := newYard(t)
	j := y.must(Spec{Name: "a", Path: tree(t)})
	const status = `cat /proc/self/status | while read k v; do case $k in CapPrm:|CapEff:|CapBnd:|NoNewPrivs:|Seccomp:) echo -n "$k$v ";; esac; done`
	const want = "CapPrm:00000000200404fb CapEff:00000000200404fb CapBnd:00000000200404fb NoNewPrivs:1 Seccomp:2"
	j.says(t, status, want)
	if out, _ := j.run(t, "id -u; id -g; id -G; "+status, User{1001, 1002, []uint32{1003}}); out != "1001\n1002\n1002 1003\n"+
		"CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000200404fb NoNewPrivs:1 Seccomp:2" {
		t.Errorf("%s", out)
	}
	j.says(t, "ls /proc/$$/fd; true", "0\n1\n2")
	if !slices.Contains(j.Processes(), j.PID()) {
		t.Errorf("the first process is not in the cgroup: %v", j.Processes())
	}
	j.says(t, "cat /proc/self/cgroup | cat | while IFS=: read n c p; do [ $n = 0 ] && echo $p; done", "/")
	j.says(t, "echo $$ > /tmp/x; [ $(cat /tmp/x) -gt 1 ] && echo inside", "inside")
}

func TestACommandThatCannotBeExecutedIsAnError(t *testing.T) {
	y := newYard(t)
	j := y.must(Spec{Name: "a", Path: tree(t)})
	write(t, filepath.Join(j.Spec().Path, "bin/text"), "text", 0o644)
	for name, want := range map[string]error{"none": unix.ENOENT, "text": unix.EACCES, "/bin": unix.EACCES, "/bin/none": unix.ENOENT, "/tmp": unix.EACCES} {
		_, err := j.Start(Command{Argv: []string{name}, Env: []string{"PATH=/nowhere:/bin"}})
		if e, ok := errors.AsType[*ExecError](err); !ok || !errors.Is(err, want) || e.Command != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := j.Start(Command{Argv: []string{"true"}, Stdin: dir}); err == nil || !strings.Contains(err.Error(), "directory of the host") {
		t.Errorf("%v", err)
	}
}

func TestUsersAreThoseOfTheJail(t *testing.T) {
	y := newYard(t)
	j := y.must(Spec{Name: "a", Path: tree(t)})
	u, home, shell, err := j.LookupUser("web")
	if err != nil || u.UID != 1001 || u.GID != 1002 || !slices.Equal(u.Groups, []uint32{1003}) || home != "/home" || shell != "/bin/sh" {
		t.Errorf("%v %s %s %v", u, home, shell, err)
	}
	if _, _, _, err := j.LookupUser("nobody"); err == nil {
		t.Error("nobody is found")
	}
	passwd := filepath.Join(j.Spec().Path, "etc/passwd")
	os.Remove(passwd)
	if err := os.Symlink("/etc/../../../../../../../../etc/shadow", passwd); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := j.LookupUser("web"); err == nil || !strings.Contains(err.Error(), "unknown user") {
		t.Errorf("a link led out: %v", err)
	}
}

func TestAProcessIsWaitedForThroughSignals(t *testing.T) {
	child := exec.Command("sleep", "0.3")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	p, err := identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	thread, waited := make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		p.awaitEnd()
		close(waited)
	}()
	for tid := <-thread; ; time.Sleep(time.Millisecond) {
		select {
		case <-waited:
			if err := unix.Kill(pid, 0); err != unix.ESRCH {
				t.Errorf("the process is there: %v", err)
				child.Wait()
			}
			return
		default:
			unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}
}
