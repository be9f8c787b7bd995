//go:build amd64 || arm64

package escape

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A line is what an attacker says on its standard output.
type line struct {
	Frame []byte // a frame that it got
	From  []byte // its sender's hardware address
	Bytes []byte // anything else that may be of others
	Ask   string // something that the world must do; one line comes back
	Met   string // what the attempt met, at its end
	Free  bool   // or nothing
}

// An attacker is this process in an attempt.
type attacker struct {
	*attempt
	setting setting
	marker  string // in all frames that it sends
	stage   string // of attempts that go on in another process; "" is the first
	out     *json.Encoder
	in      *bufio.Reader
}

// The environment of an attacker's process.
const (
	envRole    = "JAILTAP_ESCAPE_ROLE"
	envAttempt = "JAILTAP_ESCAPE_ATTEMPT"
	envSetting = "JAILTAP_ESCAPE_SETTING"
	envMarker  = "JAILTAP_ESCAPE_MARKER"
	envStage   = "JAILTAP_ESCAPE_STAGE"
	envBroker  = "JAILTAP_ESCAPE_BROKER"
)

// sourceFD is where captive sockets come from, in the settings held and passed;
// and where a later stage finds its socket.
const sourceFD = 3

func attack() {
	a := &attacker{attempt: find(os.Getenv(envAttempt)), setting: setting(os.Getenv(envSetting)), marker: os.Getenv(envMarker),
		stage: os.Getenv(envStage), out: json.NewEncoder(os.Stdout), in: bufio.NewReader(os.Stdin)}
	if err := a.do(a); err != nil {
		a.out.Encode(line{Met: err.Error()})
	} else {
		a.out.Encode(line{Free: true})
	}
}

// broken ends an attempt that could not be made.
func broken(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "attempt not made: "+format+"\n", args...)
	os.Exit(3)
}

func must(what string, err error) {
	if err != nil {
		broken("%s: %v", what, err)
	}
}

// ask has the world do something.
func (a *attacker) ask(what string, args ...string) string {
	a.out.Encode(line{Ask: strings.Join(append([]string{what}, args...), " ")})
	answer, err := a.in.ReadString('\n')
	must(what, err)
	return strings.TrimSuffix(answer, "\n")
}

func (a *attacker) askNumber(what string, args ...string) int {
	n, err := strconv.Atoi(a.ask(what, args...))
	must(what, err)
	return n
}

// captive is a captive socket, not bound.
func (a *attacker) captive() int { return a.socket(unix.SOCK_RAW) }

// bound is one that is bound to the first interface.
func (a *attacker) bound() int {
	fd := a.captive()
	a.bind(fd, "eth0")
	return fd
}

// bind binds, as far as the setting allows for it.
func (a *attacker) bind(fd int, ifname string) {
	if err := bindTo(fd, ifname); a.setting != settled {
		must("bind to "+ifname, err)
	}
}

func (a *attacker) socket(typ int) int {
	fd, err := -1, error(nil)
	switch {
	case a.stage != "":
		return sourceFD
	case a.setting == fromBroker:
		fd, err = fromTheBroker(typ == unix.SOCK_DGRAM)
	case a.setting != run && a.setting != free:
		fd, err = fetch(sourceFD, fmt.Sprint(typ, " ", a.setting, " ", a.policy))
	default:
		fd, err = unix.Socket(unix.AF_PACKET, typ, 0)
	}
	must("a socket", err)
	return fd
}

// fetch asks for a captive socket.
func fetch(source int, request string) (int, error) {
	if err := unix.Sendmsg(source, []byte(request), nil, nil, 0); err != nil {
		return -1, err
	}
	return receiveFD(source)
}

// receiveFD waits for a descriptor.
func receiveFD(conn int) (int, error) {
	text, rights := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(conn, text, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("no descriptor came: %s", text[:n])
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// goOn has another process do the next stage with the socket.
func (a *attacker) goOn(stage string, fd int, attr *unix.SysProcAttr) error {
	cmd := a.next(stage, fd)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	// The stage's lines are as good as ours.
	for l := range bytes.Lines(out) {
		if bytes.HasPrefix(l, []byte("{")) {
			os.Stdout.Write(l)
		} else {
			err = errors.Join(err, errors.New(string(l)))
		}
	}
	return err
}

func (a *attacker) next(stage string, fd int) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envStage+"="+stage)
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "captive")}
	return cmd
}

func index(ifname string) int {
	link, err := net.InterfaceByName(ifname)
	must("interface "+ifname, err)
	return link.Index
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

func bindTo(fd int, ifname string) error { return bindFor(fd, ifname, unix.ETH_P_ALL) }

func bindFor(fd int, ifname string, protocol uint16) error {
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(protocol)}
	if ifname != "any" {
		to.Ifindex = index(ifname)
	}
	return unix.Bind(fd, to)
}

// enough is how many frames of one kind an attacker looks at.
const enough = 12

// look reads frames until there were enough of the jail's, or of others. That
// there are none at all proves nothing.
func (a *attacker) look(fd int) error {
	own, foreign := a.watch(fd, 5*time.Second)
	if own+foreign == 0 {
		broken("no frames came")
	}
	if foreign > 0 {
		return nil
	}
	return errors.New("saw own frames only")
}

// peek is look where it is right that nothing is seen.
func (a *attacker) peek(fd int) error {
	own, foreign := a.watch(fd, 100*time.Millisecond)
	switch {
	case foreign > 0:
		return nil
	case own > 0:
		return errors.New("saw own frames only")
	}
	return errors.New("saw nothing")
}

func (a *attacker) watch(fd int, most time.Duration) (own, foreign int) {
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000})
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(most); own < enough && foreign < enough && time.Now().Before(end); {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == nil {
			a.got(buf[:n], from)
			own += bytes.Count(buf[:n], []byte(ownWord))
			foreign += bytes.Count(buf[:n], []byte(foreignWord))
		}
	}
	return own, foreign
}

// got shows a frame to the judge.
func (a *attacker) got(frame []byte, from unix.Sockaddr) {
	l := line{Frame: frame}
	if ll, ok := from.(*unix.SockaddrLinklayer); ok {
		l.From = ll.Addr[:min(ll.Halen, 8)]
	}
	a.out.Encode(l)
}

// leaks shows the judge bytes that should be nobody's but the attacker's.
func (a *attacker) leaks(b []byte) { a.out.Encode(line{Bytes: b}) }

// exits are the interfaces to send on, of three link types.
var exits = []string{"eth0", "eth1", "lo", "tun0"}

// transmit sends on every interface in one way.
func (a *attacker) transmit(fd int, how way) error {
	var t tally
	for _, ifname := range exits {
		t.add(a.transmitOn(fd, ifname, how))
	}
	return t.met()
}

func (a *attacker) transmitOn(fd int, ifname string, how way) error {
	a.bind(fd, ifname)
	return how(fd, index(ifname), a.frame())
}

// frame is one with the attacker's marker.
func (a *attacker) frame() []byte { return udp(jail4, far4, a.marker) }

// abuse does to a packet socket what the others do one by one.
func (a *attacker) abuse(fd int) error {
	met := a.transmit(fd, sendBound)
	a.bind(fd, "eth0")
	return then(met, a.look(fd))
}
