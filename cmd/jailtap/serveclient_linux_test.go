package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
	"jailtap/loader/broker"
)

// askBroker names the socket of the broker that the test binary asks for captures
// if it is a client: see asker.
const askBroker = "JAILTAP_TEST_ASK"

func init() {
	if path := os.Getenv(askBroker); path != "" {
		(&asker{path: path, added: map[*os.File]bool{}}).obey()
		os.Exit(0)
	}
}

// An asker has captive sockets, on an interface named tap, and does what lines on
// standard input say.
type asker struct {
	path    string
	sockets []*os.File
	storm   bool // ask for more all the time

	asked, refused, own, foreign int
	added                        map[*os.File]bool // that have read a frame of the address that is added
}

// What frames have in them.
var (
	ownFrame     = []byte("OWN")
	foreignFrame = []byte("FOREIGN")
	addedFrame   = []byte("ADDED") // of an address that the jail gets later
	captiveFrame = []byte("CAPTIVE")
)

const mostHeld = 16

func (a *asker) obey() {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return
			}
			a.do(line)
			fmt.Printf("%s: held %d, asked %d, refused %d, own %d, foreign %d, added %d.\n", line, len(a.sockets), a.asked, a.refused, a.own, a.foreign, len(a.added))
		case <-time.After(time.Millisecond):
			if a.storm {
				a.ask()
			}
			a.look()
		}
	}
}

func (a *asker) do(line string) {
	n := 0
	fmt.Sscanf(line, "ask %d", &n)
	for range n {
		a.ask()
	}
	switch line {
	case "storm", "calm":
		a.storm = line == "storm"
	case "close":
		for _, s := range a.sockets {
			s.Close()
		}
		a.sockets = nil
	}
}

func (a *asker) ask() {
	a.asked++
	c, err := broker.Dial(a.path)
	if err != nil {
		a.refused++
		return
	}
	defer c.Close()
	_, socket, err := c.Capture(broker.Request{Interface: "tap"})
	if err != nil {
		a.refused++
		fmt.Fprintln(os.Stderr, err)
		return
	}
	a.sockets = append(a.sockets, socket)
	if a.storm && len(a.sockets) > mostHeld {
		a.sockets[0].Close()
		a.sockets = a.sockets[1:]
	}
}

// look reads what there is, and tries to send.
func (a *asker) look() {
	buf := make([]byte, 2048)
	for _, s := range a.sockets {
		for {
			n, _, err := unix.Recvfrom(int(s.Fd()), buf, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			if bytes.Contains(buf[:n], ownFrame) {
				a.own++
			}
			if bytes.Contains(buf[:n], foreignFrame) {
				a.foreign++
			}
			if bytes.Contains(buf[:n], addedFrame) {
				a.added[s] = true
			}
		}
		unix.Send(int(s.Fd()), testutil.UDP4(web, db, captiveFrame), unix.MSG_DONTWAIT)
	}
}

// A client is an asker in a process of user nobody, in a namespace.
type client struct {
	*process
	in *os.File
}

func startClient(t testing.TB, ns *testutil.Namespace, socket string) *client {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Stdin = r
	t.Setenv(askBroker, socket)
	c := &client{inside(t, ns, nobody, cmd), w}
	os.Unsetenv(askBroker)
	t.Cleanup(func() {
		w.Close()
		c.Wait()
	})
	return c
}

// tell has the client do something, and returns what it says then.
func (c *client) tell(line string) (answer string) {
	c.t.Helper()
	before := strings.Count(c.stdout.String(), line+": ")
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, line, func() bool {
		parts := strings.Split(c.stdout.String(), line+": ")
		last := parts[len(parts)-1]
		answer, _, _ = strings.Cut(last, "\n")
		return len(parts) > before+1 && strings.Contains(last, ".\n")
	})
	return answer
}

// wants checks what a client says when it is told something.
func (c *client) wants(line, words string) {
	c.t.Helper()
	if answer := c.tell(line); !strings.Contains(answer, words) {
		c.t.Errorf("%s: %q, want %q in it; stderr:\n%s", line, answer, words, c.stderr.String())
	}
}

// inside starts a command as a user without privileges in a namespace.
func inside(t testing.TB, ns *testutil.Namespace, uid uint32, cmd *exec.Cmd) (p *process) {
	t.Helper()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	ns.Do(func() error {
		p = startCommand(t, cmd, nil)
		return nil
	})
	return p
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 2000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it never came: %s", what)
}
