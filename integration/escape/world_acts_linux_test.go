//go:build amd64 || arm64

package escape

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// acts are what attackers can have happen in the world.
var acts = map[string]func(w *world, p *prey, args []string) string{
	// a new interface
	"interface": func(w *world, _ *prey, args []string) string { return w.later(args[0]) },

	// the process that the attacker would like to harm
	"agent": func(_ *world, p *prey, _ []string) string { return fmt.Sprint(p.cmd.Process.Pid) },

	// the process of another user that holds the neighbour's captive socket
	"neighbour": func(w *world, _ *prey, _ []string) string { return fmt.Sprint(os.Getpid(), " ", w.other.fd) },

	// somebody kills the agent
	"kill agent": func(_ *world, p *prey, _ []string) string {
		p.killed = true
		p.cmd.Process.Kill()
		return waitGone(p.cmd.Process.Pid)
	},

	// the broker's process
	"broker": func(w *world, _ *prey, _ []string) string { return fmt.Sprint(w.daemon.cmd.Process.Pid) },

	// somebody kills the broker, and starts the next
	"kill broker":  func(w *world, _ *prey, _ []string) string { w.daemon.kill(); return "ok" },
	"start broker": func(w *world, _ *prey, _ []string) string { w.daemon.start(); return "ok" },

	// somebody else runs a command, which makes and ends guards
	"run": func(w *world, _ *prey, _ []string) string {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, w.jailtap, "run", "-a", neighbour4.String(), "--in-netns", w.host.Name, "--user", "1", "--", w.self)
		cmd.Env = append(os.Environ(), envRole+"=socket")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, strings.ReplaceAll(string(out), "\n", " "))
		}
		return "ok"
	},

	// an administrator moves a process to another cgroup
	"move": func(w *world, _ *prey, args []string) string {
		dir := filepath.Join(cgroupMount(w.t.Fatal), fmt.Sprint("jailtap-escape-moved-", os.Getpid()))
		w.check(os.MkdirAll(dir, 0o755))
		w.t.Cleanup(func() { os.Remove(dir) })
		return fmt.Sprint(os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(args[0]), 0))
	},

	// somebody starts a Warden with its pins in a directory
	"warden": func(w *world, _ *prey, args []string) string { return w.anotherWarden(args[0]) },

	// a copy of the attacker's program that has CAP_NET_RAW, or root's user ID
	"privileged": func(w *world, _ *prey, args []string) string { return w.privileged(args[0]) },

	// frames that the attempt has crafted; their nonce
	"inject": func(w *world, p *prey, _ []string) string {
		w.check(p.craft())
		return fmt.Sprint(p.nonce)
	},

	// frames of up to 64 KB
	"bulk": func(w *world, _ *prey, _ []string) string { return fmt.Sprint(w.bulk()) },
}

func (w *world) act(p *prey, words []string) string {
	for n := len(words); n > 0; n-- {
		if act := acts[strings.Join(words[:n], " ")]; act != nil {
			return act(w, p, words[n:])
		}
	}
	p.fault("asked for %q", words)
	return ""
}

// waitGone waits until a process does nothing any more.
func waitGone(pid int) string {
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return "ok"
		}
		time.Sleep(time.Millisecond)
	}
}

// bulk sends data through TCP between the two ends of the first wire, whose
// kernels make frames of it that are larger than the MTU.
func (w *world) bulk() error {
	var l net.Listener
	err := w.host.Do(func() (err error) {
		l, err = net.Listen("tcp", "10.0.9.1:0")
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	sent := make(chan error, 1)
	go func() { sent <- w.wire.Do(func() error { return sendBulk(l.Addr().String()) }) }()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.Copy(io.Discard, c); err != nil {
		return err
	}
	return <-sent
}

func sendBulk(to string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	addr, err := net.ResolveTCPAddr("tcp", to)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
		return err
	}
	data := []byte(strings.Repeat(foreignWord, 1<<16/len(foreignWord)))
	for range 64 {
		if _, err := unix.Write(fd, data); err != nil {
			return err
		}
	}
	return nil
}

// anotherWarden starts one that lasts as long as the attempt, and is what it
// says.
func (w *world) anotherWarden(pins string) string {
	p := wardenPlace(w.t, "-another")
	p.pins = pins
	wd := startWarden(w, p)
	conn := wd.client()
	defer conn.Close()
	fd, err := fetch(int(conn.Fd()), fmt.Sprint(unix.SOCK_RAW, " held full"))
	if err != nil {
		wd.control.Close()
		wd.control = nil
		wd.cmd.Wait()
		return strings.ReplaceAll(fmt.Sprint(err, " ", wd.said.String()), "\n", " ")
	}
	unix.Close(fd)
	return "ok"
}

// privileged gives a copy of the program the set-user-ID bit, or a capability:
// struct vfs_cap_data of linux/capability.h.
func (w *world) privileged(kind string) string {
	path := w.self + "-" + kind
	w.copy(w.self, path)
	if kind == "setuid" {
		w.check(os.Chmod(path, 0o4755))
		return path
	}
	const revision2, effective = 0x02000000, 1
	data := binary.LittleEndian.AppendUint32(nil, revision2|effective)
	data = binary.LittleEndian.AppendUint32(data, 1<<unix.CAP_NET_RAW)
	w.check(unix.Setxattr(path, "security.capability", append(data, make([]byte, 12)...), 0))
	return path
}
