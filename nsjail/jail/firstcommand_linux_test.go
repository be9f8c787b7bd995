//go:build amd64 || arm64

package jail

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asked is what a command of a start prints, and how it has ended.
func (y *yard) asked(spec Spec, s Starter) (text string, err error) {
	y.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		y.Fatal(err)
	}
	defer read.Close()
	s.Stdout, s.Stderr = write, write
	_, failed := y.Create(y.Context(), spec, s)
	write.Close()
	var b bytes.Buffer
	b.ReadFrom(read)
	return strings.TrimSpace(b.String()), failed
}

// What a command of the first process has is what one that enters the jail has:
// privileges, session, descriptors, namespaces, surroundings.
func TestTheFirstProcessStartsACommandAsOneThatEnters(t *testing.T) {
	y := newYard(t)
	const look = `grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig[PBIC]|CoreDump|Umask|NSpgid|NSsid)' /proc/self/status
		ls -l /proc/self/ns /proc/self/cwd /proc/self/root | sed 's/.*-> //'; ls /proc/self/fd; cat /proc/self/cgroup
		env; id; [ -r /proc/1/environ ] && cat /proc/1/environ; tr '\0' '\n' < /proc/1/cmdline; for n in 3 4; do cat /proc/1/fd/$n 2>&- && echo opened $n; done; ulimit -a`
	for _, user := range []string{"", "web"} {
		spec := Spec{Name: "a", Path: tree(t), Network: NoNetwork, Commands: Commands{
			Command: []string{"sh", "-c", look}, User: user, Clean: true}}
		var entered bool
		other, err := y.asked(spec, Starter{Run: func(j *Jail, c Command) (int, error) {
			entered = true
			return startAndWait(j, c)
		}})
		if err != nil || !entered {
			t.Fatalf("%v: %s", err, other)
		}
		first, err := y.asked(spec, Starter{})
		if err != nil {
			t.Fatalf("%v: %s", err, first)
		}
		if a, b := withoutInodes(first), withoutInodes(other); a != b || !strings.Contains(a, "Seccomp:\t2") {
			t.Errorf("user %q: by the first process:\n%s\nby entering:\n%s", user, a, b)
		}
	}
}

// withoutInodes leaves out the numbers of namespaces, which each jail has others of.
func withoutInodes(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		kind, _, ok := strings.Cut(line, ":[")
		if ok {
			line = kind + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestTheEndOfACommandOfTheFirstProcessIsTold(t *testing.T) {
	y := newYard(t)
	spec := Spec{Name: "a", Path: tree(t), Network: NoNetwork}
	for line, want := range map[string]int{
		"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "kill -11 $$; sleep 10": 139,
		"(sleep 1000 &) ; exit 3": 3,
	} {
		spec.Commands.Command = []string{"sh", "-c", line}
		_, err := y.asked(spec, Starter{})
		failed, ok := errors.AsType[*StatusError](err)
		if want == 0 && err != nil || want != 0 && (!ok || failed.Status != want) {
			t.Errorf("%s: %v, want status %d", line, err, want)
		}
	}
	spec.Commands.Command = []string{"/bin/nothing"}
	_, err := y.asked(spec, Starter{})
	if failed, ok := errors.AsType[*ExecError](err); !ok || failed.Err != unix.ENOENT || failed.Command != "/bin/nothing" {
		t.Errorf("of a program that is not there: %v", err)
	}
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := y.asked(spec, Starter{Stdin: dir}); err == nil || !strings.Contains(err.Error(), "descriptor 0 is a directory") {
		t.Errorf("with a directory for a descriptor: %v", err)
	}
}

func TestACommandOfTheFirstProcessGetsSignalsAndMayBeRemoved(t *testing.T) {
	y := newYard(t)
	spec := Spec{Name: "a", Path: tree(t), Network: NoNetwork}
	for what, end := range map[string]struct {
		do   func()
		want int
	}{
		"a signal":  {func() { syscall.Kill(os.Getpid(), syscall.SIGTERM) }, 42},
		"a removal": {func() { killCgroup(y.only().rec.Cgroup) }, 137},
	} {
		t.Run(what, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			go func() {
				read.Read(make([]byte, 1)) // the command is there
				end.do()
			}()
			spec.Commands.Command = []string{"sh", "-c", "trap 'exit 42' TERM; echo; while :; do sleep 0.01; done"}
			_, err = y.Create(t.Context(), spec, Starter{Stdout: write})
			write.Close()
			if failed, ok := errors.AsType[*StatusError](err); !ok || failed.Status != end.want {
				t.Errorf("got %v, want status %d", err, end.want)
			}
		})
	}
}

// only is the one jail that there is.
func (y *yard) only() *Jail {
	jails, err := y.List()
	if err != nil || len(jails) != 1 {
		y.Errorf("there are %d jails: %v", len(jails), err)
	}
	return jails[0]
}
