//go:build amd64 || arm64

package escape

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/loader/broker"
)

// againstBroker are about a daemon that gives captive sockets to those whom it
// serves. Where it must not be harmed, a process of another jail gets one in the end.
var againstBroker = []attempt{
	{name: "a socket of the broker's", how: "then everything that a packet socket can do", in: served, control: true, do: func(a *attacker) error { return a.abuse(a.captive()) }},
	{name: "to be another jail", how: "messages that name jails, addresses, users and processes", in: served, do: claimJails},
	{name: "other interfaces and namespaces", how: "names that are paths, numbers, and names elsewhere", in: served, do: foreignInterfaces},
	{name: "descriptors to the broker", how: "SCM_RIGHTS: namespaces, devices and sockets, as many as there may be", in: served, outside: brokerHarmed, do: descriptorsToBroker},
	{name: "filters to the broker", how: "programs of every length and of noise; expressions that take long", in: served, outside: brokerHarmed, do: filtersToBroker},
	{name: "malformed messages", how: "empty, cut, nested, huge, noise", in: served, outside: brokerHarmed, do: malformedToBroker},
	{name: "connections without end", how: "2,000 that ask for nothing, then captures until it is refused", in: served, outside: brokerHarmed, do: floodBroker},
	{name: "into the broker", how: "ptrace(2), pidfd_getfd(2), kill(2), /proc/PID", in: served, outside: brokerHarmed, do: intoBroker},
	{name: "the broker's place", how: "unlink(2), rename(2) and bind(2) of its socket", in: served, outside: brokerHarmed, do: replaceBroker},
	{name: "kill the broker", how: "SIGKILL by root; sockets stay scoped and mute, and so with the next one", in: served, outside: brokerHarmed, do: killBroker},
}

var served = []setting{fromBroker}

// A daemon is a jailtap serve, and the next one when it was killed.
type daemon struct {
	w      *world
	cmd    *exec.Cmd
	socket string
	said   strings.Builder
}

// jailsFile has the attackers' jail and another.
const jailsFile = `jails:
- {name: attackers, match: {uid: %d}, addresses: [%v, "%v"], limits: {captives: 16, rate: 200}}
- {name: other, match: {uid: 1}, addresses: [%v]}
`

func startDaemon(w *world) *daemon {
	d := &daemon{w: w, socket: filepath.Join(filepath.Dir(w.self), "broker.sock")}
	w.check(os.WriteFile(d.jails(), fmt.Appendf(nil, jailsFile, nobody, jail4, jail6, neighbour4), 0o600))
	d.start()
	w.t.Cleanup(func() {
		d.cmd.Process.Signal(unix.SIGTERM)
		if err := d.cmd.Wait(); err != nil {
			w.t.Errorf("the broker: %v: %s", err, d.said.String())
		}
	})
	return d
}

func (d *daemon) jails() string { return filepath.Join(filepath.Dir(d.w.self), "jails.yaml") }

func (d *daemon) start() {
	d.cmd = exec.Command(d.w.jailtap, "serve", "--socket", d.socket, "--jails", d.jails())
	d.cmd.Stderr = &d.said
	d.w.check(d.w.host.Do(d.cmd.Start))
	for range 500 {
		if conn, err := net.Dial("unixpacket", d.socket); err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.w.t.Fatalf("the broker does not listen: %s", d.said.String())
}

func (d *daemon) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// brokerHarmed is a harm if a process of the other jail gets no socket.
func brokerHarmed(w *world, _ *prey) string {
	cmd := exec.Command(w.self)
	cmd.Env = append(os.Environ(), envRole+"=client", envBroker+"="+w.daemon.socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}}
	cmd.Dir = "/"
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	w.check(w.host.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		return "another jail gets no socket: " + out.String()
	}
	return ""
}

// askAsOther is that process.
func askAsOther() error {
	c, err := broker.Dial(os.Getenv(envBroker))
	if err != nil {
		return err
	}
	grant, socket, err := c.Capture(broker.Request{Interface: "eth0", Filter: broker.Filter{Expression: "udp"}})
	if err != nil {
		return err
	}
	defer socket.Close()
	if grant.Jail != "other" {
		return fmt.Errorf("the socket is jail %s's", grant.Jail)
	}
	return nil
}

// fromTheBroker is a captive socket, not bound.
func fromTheBroker(datagram bool) (int, error) {
	c, err := broker.Dial(os.Getenv(envBroker))
	if err != nil {
		return -1, err
	}
	_, socket, err := c.Capture(broker.Request{Datagram: datagram})
	if err != nil {
		return -1, err
	}
	return unix.Dup(int(socket.Fd()))
}

// tell sends a message with descriptors, and is the answer.
func tell(text string, fds ...int) (answer string, err error) {
	conn, err := dialBroker()
	if err != nil {
		return "", err
	}
	defer unix.Close(conn)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(conn, []byte(text), rights, nil, 0); err != nil {
		return "", err
	}
	buf := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(conn, buf, 0)
	return string(buf[:max(n, 0)]), err
}

func dialBroker() (int, error) {
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must("unix socket", err)
	if err := unix.Connect(conn, &unix.SockaddrUnix{Name: os.Getenv(envBroker)}); err != nil {
		unix.Close(conn)
		return -1, err
	}
	unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	return conn, nil
}

// codeOf is what an answer comes to, for a tally.
func codeOf(answer string, err error) error {
	_, code, refused := strings.Cut(answer, `"code":"`)
	switch {
	case err != nil:
		return underlying(err)
	case refused:
		code, _, _ = strings.Cut(code, `"`)
		return errors.New("refused: " + code)
	case answer == "":
		return errors.New("closed")
	}
	return nil
}

func claimJails(a *attacker) error {
	var t tally
	for _, claim := range []string{
		`"jail":"other"`, `"uid":1`, `"pid":1`, `"addresses":["10.0.0.6"]`, `"scope":"any"`, `"policy":"none"`, `"netns":"/proc/1/ns/net"`,
		`"cgroup":"/"`, `"label":"other"`, `"cookie":1`, `"Op":"adopt"`, `"op":"adopt"`, `"op":"scope"`,
	} {
		t.add(codeOf(tell(`{"version":1,"op":"capture","interface":"eth0",` + claim + `}`)))
	}
	return then(t.refused(), a.abuse(a.captive()))
}

func foreignInterfaces(a *attacker) error {
	var t tally
	for _, name := range []string{
		"../eth0", "/sys/class/net/eth0", "eth0/../lo", "2", "-1", "eth0\\u0000", "ETH0", " eth0", "eth0@if2", "%s%n", strings.Repeat("e", 4096),
		"/proc/1/ns/net", "bpf0", "nflog", "usbmon0", "dbus-system",
	} {
		t.add(said(fmt.Sprintf("%.10q", name), codeOf(tell(`{"version":1,"op":"capture","interface":"`+name+`"}`))))
	}
	return t.refused()
}

func descriptorsToBroker(a *attacker) error {
	var t tally
	for _, path := range []string{"/proc/self/ns/net", "/proc/self/ns/user", "/dev/null", "/dev/zero", "/proc/self/mem"} {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		must(path, err)
		var fds []int
		for range 253 { // SCM_MAX_FD
			fds = append(fds, fd)
		}
		t.add(said(path, codeOf(tell(`{"version":1,"op":"capture","interface":"eth0"}`, fds...))))
		unix.Close(fd)
	}
	return t.met()
}

func filtersToBroker(a *attacker) error {
	var t tally
	ask := func(filter string) {
		t.add(codeOf(tell(`{"version":1,"op":"capture","interface":"eth0",` + filter + `}`)))
	}
	for _, n := range []int{0, 1, 4096, 4097, 9000} {
		ask(`"program":[` + strings.TrimSuffix(strings.Repeat("[6,0,0,1],", n), ",") + `]`)
	}
	for range 20 {
		ask(fmt.Sprintf(`"program":[[%d,%d,%d,%d],[6,0,0,1]]`, rand.IntN(1<<16), rand.IntN(256), rand.IntN(256), rand.Uint32()))
	}
	ask(`"expression":"` + strings.Repeat("(", 4000) + `"`)
	ask(`"expression":"` + strings.Repeat("host 10.0.0.1 or ", 900) + `udp"`)
	ask(`"expression":"` + strings.Repeat("not ", 4000) + `udp"`)
	ask(`"expression":"host localhost or host example.org"`)
	return t.met()
}

func malformedToBroker(a *attacker) error {
	var t tally
	noise := make([]byte, 1000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for _, text := range []string{
		"{", "[]", "null", "0", `"capture"`, `{"version":1}`, `{"version":2,"op":"capture"}`, `{"version":1e400}`, `{"version":1,"op":"capture"}{}`,
		strings.Repeat("[", 100_000), `{"version":1,"op":"` + strings.Repeat("x", 150_000) + `"}`, strings.Repeat(" ", 170_000), string(noise),
		`{"version":1,"op":"filter"}`, `{"version":1,"op":"clear"}`, `{"version":1,"op":"stats"}`, `{"version":1,"op":"capture","ring":-1}`,
		`{"version":1,"op":"capture","interface":"eth0","ring":9223372036854775807}`, `{"version":1,"op":"capture","snaplen":-1}`,
	} {
		t.add(codeOf(tell(text)))
	}
	return t.refused()
}

func floodBroker(a *attacker) error {
	var t tally
	for range 2000 {
		_, err := dialBroker()
		t.add(said("connect", err))
	}
	for range 400 {
		fd, err := fromTheBroker(false)
		refusal, refused := errors.AsType[*broker.Refusal](err)
		switch {
		case refused:
			t.add(fmt.Errorf("refused: %s", refusal.Code))
		case err != nil:
			t.add(underlying(err))
		default:
			t.add(errors.New("captive"))
			defer unix.Close(fd)
		}
	}
	return t.met()
}

func intoBroker(a *attacker) error {
	pid := a.askNumber("broker")
	var t tally
	for fd := range 16 {
		taken, met := seize(pid, fd)
		if taken >= 0 {
			return nil
		}
		t.add(met)
	}
	for sig := unix.Signal(1); sig <= 64; sig++ {
		if sig != unix.SIGCONT { // see signalAgent
			t.add(unix.Kill(pid, sig))
		}
	}
	return t.refused()
}

func replaceBroker(a *attacker) error {
	path := os.Getenv(envBroker)
	var t tally
	t.add(unix.Unlink(path))
	t.add(unix.Rename(path, path+".old"))
	t.add(unix.Chmod(path, 0o777))
	t.add(unix.Truncate(path, 0))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	must("unix socket", err)
	t.add(unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	return t.refused()
}

func killBroker(a *attacker) error {
	fd := a.bound()
	a.ask("kill broker")
	met := a.abuse(fd)
	_, err := dialBroker()
	if err == nil {
		broken("somebody listens although it was killed")
	}
	a.ask("start broker")
	return then(then(met, a.transmit(fd, pastQdisc)), a.abuse(fd))
}
