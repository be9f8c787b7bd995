//go:build amd64 || arm64

package oci

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

func namesIn(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// openFDs is how many descriptors this process has.
func openFDs(t testing.TB) int {
	t.Helper()
	names, err := namesIn("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// pair are the ends of a connection.
func pair(t testing.TB) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// newListener is the listener of a thread that has ended.
func newListener(t testing.TB) int {
	t.Helper()
	type made struct {
		fd  int
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread()
		fd, err := installFilter()
		done <- made{fd, err}
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	return m.fd
}

// write sends a text in parts of at most so many bytes, descriptors with the first.
func write(conn *net.UnixConn, text string, most int, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for rest := []byte(text); len(rest) > 0; rights = nil {
		n, _, err := conn.WriteMsgUnix(rest[:min(most, len(rest))], rights, nil)
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// crunState is a message as crun 1.8.1 sends it when it executes a process.
const crunState = `{
    "ociVersion": "0.2.0",
    "fds": [
        "seccompFd"
    ],
    "pid": 0,
    "state": {
        "ociVersion": "0.2.0",
        "id": "t1",
        "status": "running",
        "pid": 0,
        "bundle": ".",
        "annotations": {
            "a": "b"
        }
    }
}
`

// runcState is one as runc 1.1.5 sends it.
const runcState = `{"ociVersion":"1.0.2-dev","fds":["seccompFd"],"pid":744,"state":{"ociVersion":"1.0.2-dev","id":"t2","status":"creating","pid":744,"bundle":"/tmp/b","annotations":{"a":"b"}}}`

func TestMessagesOfRuntimesAreUnderstoodHoweverTheyCome(t *testing.T) {
	long, err := json.Marshal(specs.ContainerProcessState{
		Version: "1.2.0", Fds: []string{"other", specs.SeccompFdName}, Pid: 7, Metadata: "m",
		State: specs.State{ID: "long", Annotations: map[string]string{"a": strings.Repeat("}", 500_000)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text  string
		extra int // descriptors before the listener
		id    string
	}{"crun": {crunState, 0, "t1"}, "runc": {runcState, 0, "t2"}, "long": {string(long), 1, "long"}} {
		for _, most := range []int{1 << 30, 70_000, len(c.text)/3 + 1} {
			before := openFDs(t)
			ours, theirs := pair(t)
			go func() {
				listener := newListener(t)
				fds := append(slices.Repeat([]int{int(os.Stdin.Fd())}, c.extra), listener)
				if err := write(theirs, c.text, most, fds...); err != nil {
					t.Error(err)
				}
				unix.Close(listener)
				// And it stays connected, as crun may.
			}()
			m, err := receive(ours)
			if err != nil {
				t.Fatalf("%s in parts of %d: %v", name, most, err)
			}
			if m.state.State.ID != c.id || !isListener(int(m.listener.Fd())) {
				t.Errorf("%+v", m)
			}
			m.listener.Close()
			ours.Close()
			theirs.Close()
			if now := openFDs(t); now != before {
				t.Errorf("%s: %d descriptors, before %d", name, now, before)
			}
		}
	}
}

func TestABadMessageIsAnErrorAndLeavesNoDescriptor(t *testing.T) {
	listener, file := newListener(t), int(os.Stdin.Fd())
	defer unix.Close(listener)
	before := openFDs(t)
	s := serve(t, &fleets{})
	with := func(old, new string) string { return strings.Replace(runcState, old, new, 1) }
	for words, c := range map[string]struct {
		text string
		fds  []int
	}{
		"not a container process state: unexpected end":    {"", nil},
		"not a container process state: invalid character": {"hello", []int{listener}},
		`ociVersion \"2.0\" is not known`:                  {with("1.0.2-dev", "2.0"), []int{listener}},
		"there is no seccompFd among its fds":              {with("seccompFd", "seccomp"), []int{listener}},
		"it names 1 fds, but 0 came":                       {with("", ""), nil},
		"it names 1 fds, but 3 came":                       {with("", ""), []int{listener, listener, file}},
		"more than 16 descriptors came":                    {with("", ""), slices.Repeat([]int{listener}, 30)},
		"something else than a seccomp listener":           {with("", ""), []int{file}},
		"the container has no id":                          {with("t2", ""), []int{listener}},
		"the message has more than 1048576 bytes":          {with("t2", strings.Repeat("x", 2<<20)), []int{listener}},
	} {
		s.send(c.text, c.fds...)
		s.log.wait(words, 1)
	}
	p := startProcess(t) // it still serves
	s.sendState("one", nil, p)
	if err := p.asks(); err != nil {
		t.Error(err)
	}
	p.ends()
	s.log.wait("container has ended", 1)
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if now := openFDs(t); now != before {
		t.Errorf("%d descriptors, before %d", now, before)
	}
}

func TestDescriptorsThatComeLateAreClosed(t *testing.T) {
	before := openFDs(t)
	ours, theirs := pair(t)
	listener := newListener(t)
	received := make(chan error)
	go func() {
		_, err := receive(ours)
		received <- err
	}()
	if err := write(theirs, runcState[:20], 20); err != nil {
		t.Fatal(err)
	}
	for unheard(t, theirs) > 0 { // what waits would come as one
		runtime.Gosched()
	}
	if err := write(theirs, runcState[20:], 1000, listener); err != nil {
		t.Fatal(err)
	}
	unix.Close(listener)
	if err := <-received; err == nil || !strings.Contains(err.Error(), "later part of the message") {
		t.Errorf("%v", err)
	}
	ours.Close()
	theirs.Close()
	if now := openFDs(t); now != before {
		t.Errorf("%d descriptors, before %d", now, before)
	}
}

// unheard is how many bytes wait to be read at the other end (SIOCOUTQ, unix(7)).
func unheard(t *testing.T, conn *net.UnixConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) { n, ioctlErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err := errors.Join(err, ioctlErr); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRuntimesAreRootsOnly(t *testing.T) {
	testutil.NeedRoot(t)
	s := serve(t, &fleets{})
	dir := filepath.Dir(s.path)
	if err := errors.Join(os.Chmod(s.path, 0o666), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	connected := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread becomes another user's
		connected <- connectAs(65534, s.path)
	}()
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	s.log.wait("is user 65534's, and runtimes are root's", 1)
}

// connectAs connects as another user.
func connectAs(uid uintptr, path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	unchanged := ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uid, unchanged); errno != 0 {
		return errno
	}
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
}

func FuzzReceive(f *testing.F) {
	f.Add(crunState, 1, 1<<20)
	f.Add(runcState, 1, 7)
	f.Add(`{"ociVersion":"1.0.2","fds":["a","seccompFd"],"pid":1,"state":{"id":"x"}}`, 2, 40)
	f.Add("}", 0, 1)
	listener := newListener(f)
	f.Cleanup(func() { unix.Close(listener) })
	f.Fuzz(func(t *testing.T, text string, fds, most int) {
		fds, most = int(uint(fds)%5), 1+int(uint(most)%4096)
		before := openFDs(t)
		ours, theirs := pair(t)
		sent := make(chan error)
		go func() {
			write(theirs, text, most, slices.Repeat([]int{listener}, fds)...) // an error is that nobody hears any more
			sent <- theirs.Close()
		}()
		m, err := receive(ours)
		ours.Close()
		<-sent
		if err == nil {
			if m.state.State.ID == "" || len(m.state.Fds) != fds || !isListener(int(m.listener.Fd())) {
				t.Errorf("%q: %+v", text, m)
			}
			m.listener.Close()
		}
		if now := openFDs(t); now != before {
			t.Errorf("%q: %d descriptors, before %d", text, now, before)
		}
	})
}
