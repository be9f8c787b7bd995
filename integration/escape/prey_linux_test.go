//go:build amd64 || arm64

package escape

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// A prey is an attacker's process, seen from outside.
type prey struct {
	*attempt
	w       *world
	setting setting
	marker  string
	nonce   uint16
	cmd     *exec.Cmd
	mule    *exec.Cmd
	killed  bool // the agent was, by the world
	stdin   io.Writer
	stderr  bytes.Buffer
	tty     *os.File // the operator's side of the terminal, if there is one

	met     []string
	through bool            // it says that nothing was in its way
	foreign []string        // what it has got that is not the jail's
	crafted [][]byte        // what was sent to it
	shown   map[uint16]bool // of these, by their numbers
}

// nobody is who attackers are.
const nobody = 65534

func (w *world) start(t *attempt, in setting) *prey {
	p := &prey{attempt: t, w: w, setting: in, shown: map[uint16]bool{}, nonce: uint16(rand.Uint32())}
	p.marker = fmt.Sprintf("%s%016x", markerWord, rand.Uint64())
	p.cmd = exec.Command(w.self)
	switch in {
	case run:
		p.cmd = exec.Command(w.jailtap, append(p.runFlags(), w.self)...)
		secret := w.secret()
		p.cmd.ExtraFiles = []*os.File{secret, secret} // the first is where jailtap has the child's connection
	case fromBroker:
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	case held, settled, passed:
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		p.cmd.ExtraFiles = []*os.File{p.source()}
	}
	p.cmd.Env = append(os.Environ(), envRole+"=attacker", envAttempt+"="+t.name, envSetting+"="+string(in), envMarker+"="+p.marker, envBroker+"="+w.daemon.socket)
	p.cmd.Stderr = &p.stderr
	p.cmd.Dir = "/"
	if t.terminal {
		p.giveTerminal()
	}
	p.converse()
	return p
}

func (p *prey) source() *os.File {
	if p.setting == passed {
		return p.startMule()
	}
	return p.w.warden.client()
}

func (p *prey) runFlags() []string {
	flags := []string{"run", "-a", jail4.String(), "-a", jail6.String(), "--user", fmt.Sprint(nobody), "--in-netns", p.w.host.Name}
	if p.policy != "" {
		flags = append(flags, "--policy", p.policy)
	}
	return append(flags, "--")
}

// converse runs the process to its end.
func (p *prey) converse() {
	w := p.w
	out, theirs, err := os.Pipe()
	w.check(err)
	defer out.Close()
	p.cmd.Stdout = theirs
	p.stdin, err = p.cmd.StdinPipe()
	w.check(err)
	w.check(w.host.Do(p.cmd.Start))
	theirs.Close()
	for _, f := range p.cmd.ExtraFiles {
		f.Close()
	}
	late := time.AfterFunc(30*time.Second, func() { out.Close(); p.cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			p.fault("bad line %q", lines.Bytes())
			continue
		}
		p.hear(l)
	}
	err = p.cmd.Wait()
	if !late.Stop() {
		p.fault("it took too long")
	} else if err != nil && !p.killed {
		p.fault("%v", err)
	}
	if p.mule != nil {
		p.mule.Wait()
	}
}

// fault is for an attempt that was not made as it should.
func (p *prey) fault(format string, args ...any) {
	said := p.stderr.Bytes()
	p.w.t.Errorf("%s (%s): %s\n%s", p.name, p.setting, fmt.Sprintf(format, args...), said[max(0, len(said)-500):])
}

func (p *prey) hear(l line) {
	switch {
	case l.Ask != "":
		fmt.Fprintln(p.stdin, p.w.act(p, strings.Fields(l.Ask)))
	case l.Met != "":
		p.met = append(p.met, l.Met)
	case l.Free:
		p.through = true
	case l.Bytes != nil:
		p.inspect(l.Bytes)
	default:
		p.inspectFrame(l)
	}
}

func (p *prey) inspect(b []byte) {
	if bytes.Contains(b, []byte(foreignWord)) {
		p.foreign = append(p.foreign, fmt.Sprintf("%.120x", b))
	}
}

// inspectFrame judges a frame: by what the world has put into it, and where it
// is one of Ethernet by the specification.
func (p *prey) inspectFrame(l line) {
	p.inspect(l.Frame)
	id, ok := craftedID(append(make([]byte, 6), l.From...))
	if !ok || id.nonce() != uint32(p.nonce) {
		return
	}
	p.shown[id.number()] = true
}

// sentThrough counts the frames that the observers have.
func (p *prey) sentThrough() int {
	time.Sleep(10 * time.Millisecond) // what was sent has arrived by then
	return p.w.marks.count(p.marker)
}

// craft makes and sends what the attempt wants to be sent.
func (p *prey) craft() error {
	number := uint16(0)
	next := func() mac {
		number++
		return craftedMAC(p.nonce, number)
	}
	p.crafted = append(p.attempt.crafted(next), from(next(), udp(far4, jail4, "the end")))
	return p.w.traffic.inject(p.crafted)
}

// misjudged are the crafted frames that were shown although they are foreign,
// and lost those that were not although they are the jail's.
func (p *prey) misjudged() (foreign, lost []string) {
	for _, f := range p.crafted {
		id, _ := craftedID(f)
		switch own := jailScope(p.policy).Match(bpf.Ethernet, f); {
		case p.shown[id.number()] && !own:
			foreign = append(foreign, fmt.Sprintf("%x", f))
		case !p.shown[id.number()] && own:
			lost = append(lost, fmt.Sprintf("%x", f))
		}
	}
	return foreign, lost
}

// A frameID is the source address of a crafted frame: 02:6a, a nonce of the
// attempt, and a number.
type frameID mac

func craftedMAC(nonce, number uint16) mac {
	return mac{2, 0x6a, byte(nonce >> 8), byte(nonce), byte(number >> 8), byte(number)}
}

func craftedID(frame []byte) (id frameID, ok bool) {
	if len(frame) < 12 || frame[6] != 2 || frame[7] != 0x6a {
		return id, false
	}
	return frameID(frame[6:12]), true
}

func (id frameID) nonce() uint32 { return uint32(binary.BigEndian.Uint16(id[2:])) }

func (id frameID) number() uint16 { return binary.BigEndian.Uint16(id[4:]) }

// giveTerminal makes the attacker's controlling terminal the operator's.
func (p *prey) giveTerminal() {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	p.w.check(err)
	p.w.t.Cleanup(func() { master.Close() })
	p.w.check(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	p.w.check(err)
	p.tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	p.w.check(err)
	p.w.t.Cleanup(func() { p.tty.Close() })
	tty, err := unix.Dup(int(p.tty.Fd()))
	p.w.check(err)
	p.cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(tty), "tty")}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
}
