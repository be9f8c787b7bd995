//go:build amd64 || arm64

package escape

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader"
)

// A place is where a Warden keeps its guards.
type place struct{ pins, cgroup string }

const (
	envPins   = "JAILTAP_ESCAPE_PINS"
	envCgroup = "JAILTAP_ESCAPE_CGROUP"
)

// wardenPlace is one that is this process's alone.
func wardenPlace(t *testing.T, suffix string) place {
	name := fmt.Sprintf("jailtap-escape-%d%s", os.Getpid(), suffix)
	return place{filepath.Join("/sys/fs/bpf", name), filepath.Join(cgroupMount(t.Fatal), name)}
}

// cgroupMount is where cgroup v2 is mounted.
func cgroupMount(fail func(...any)) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		fail(err)
	}
	for l := range strings.Lines(string(mounts)) {
		if f := strings.Fields(l); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	fail("no cgroup v2 is mounted")
	return ""
}

// A warden is a process with a loader.Warden, which stands for a broker.
type warden struct {
	w       *world
	place   place
	cmd     *exec.Cmd
	control *os.File // who asks is sent here
	said    strings.Builder
}

func startWarden(w *world, p place) *warden {
	ours, theirs := socketPair(w.t)
	wd := &warden{w: w, place: p, control: ours, cmd: exec.Command(w.self)}
	wd.cmd.Env = append(os.Environ(), envRole+"=warden", envPins+"="+p.pins, envCgroup+"="+p.cgroup)
	wd.cmd.ExtraFiles, wd.cmd.Stderr = []*os.File{theirs}, &wd.said
	w.check(w.host.Do(wd.cmd.Start))
	theirs.Close()
	w.t.Cleanup(func() {
		if err := wd.end(); err != nil {
			w.t.Errorf("the Warden: %v: %s", err, wd.said.String())
		}
	})
	return wd
}

// end ends it and checks that it leaves nothing.
func (wd *warden) end() error {
	if wd.control == nil {
		return nil
	}
	wd.control.Close()
	wd.control = nil
	err := wd.cmd.Wait()
	for _, path := range []string{wd.place.pins, wd.place.cgroup} {
		if _, err2 := os.Stat(path); !errors.Is(err2, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("%s is left", path))
		}
	}
	return err
}

// client is a connection to the Warden, on which fetch gets captive sockets.
func (wd *warden) client() *os.File {
	ours, theirs := socketPair(wd.w.t)
	defer theirs.Close()
	wd.w.check(unix.Sendmsg(int(wd.control.Fd()), []byte{0}, unix.UnixRights(int(theirs.Fd())), nil, 0))
	return ours
}

func socketPair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(pair[0]), "pair"), os.NewFile(uintptr(pair[1]), "pair")
}

// keepWarden is the process.
func keepWarden() error {
	w, err := loader.OpenWarden(loader.WardenConfig{Pins: os.Getenv(envPins), Cgroup: os.Getenv(envCgroup)})
	if err != nil {
		return err
	}
	for {
		conn, err := receiveFD(sourceFD)
		if err != nil { // the end of the test
			return w.Close()
		}
		go serveCaptives(conn, func(typ int, in setting, what string) (int, func(), error) {
			cfg := loader.CaptiveConfig{Datagram: typ == unix.SOCK_DGRAM, Scope: scopeFor(what)}
			if in == settled {
				cfg.Interface, cfg.Datagram = "eth0", false
			}
			c, err := w.Captive(cfg)
			if err != nil {
				return -1, nil, err
			}
			return c.FD(), func() { c.Close() }, nil
		})
	}
}

func scopeFor(what string) bpf.Scope {
	if what == "neighbour" {
		return bpf.Scope{Addrs: []netip.Prefix{netip.PrefixFrom(neighbour4, 32)}}
	}
	return jailScope(what)
}

// serveCaptives answers the requests of fetch. What it has made it closes when
// the other end has gone.
func serveCaptives(conn int, make func(typ int, in setting, what string) (fd int, done func(), err error)) {
	defer unix.Close(conn)
	for {
		text := [256]byte{}
		n, _, err := unix.Recvfrom(conn, text[:], 0)
		if n <= 0 || err != nil {
			return
		}
		var typ int
		var in setting
		var what string
		fmt.Sscan(string(text[:n]), &typ, &in, &what)
		fd, done, err := make(typ, in, what)
		if err != nil {
			unix.Sendmsg(conn, []byte(err.Error()), nil, nil, 0)
			continue
		}
		defer done()
		unix.Sendmsg(conn, []byte{0}, unix.UnixRights(fd), nil, 0)
	}
}

// keepMule is a process under jailtap run that passes its sockets on.
func keepMule() error {
	serveCaptives(0, func(typ int, _ setting, _ string) (int, func(), error) {
		fd, err := unix.Socket(unix.AF_PACKET, typ, 0)
		return fd, func() { unix.Close(fd) }, err
	})
	return nil
}

// startMule starts one, and is the connection to it.
func (p *prey) startMule() *os.File {
	ours, theirs := socketPair(p.w.t)
	p.mule = exec.Command(p.w.jailtap, append(p.runFlags(), p.w.self)...)
	p.mule.Env = append(os.Environ(), envRole+"=mule")
	p.mule.Stdin, p.mule.Stdout, p.mule.Stderr = theirs, io.Discard, &p.stderr
	p.w.check(p.mule.Start())
	theirs.Close()
	return ours
}
