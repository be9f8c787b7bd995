//go:build amd64 || arm64

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jailtap/internal/capfile"
	"jailtap/internal/testutil"
)

// The story that jailtap comes from: a rc.conf of four lines, a root made from the
// live system, sshd in it, sockstat, and a capture that has the jail's packets and
// nobody else's.
func TestTheStoryOf2008(t *testing.T) {
	for _, program := range []string{"ssh", "ssh-keygen", "/usr/sbin/sshd", "ping"} {
		needTool(t, program)
	}
	h := &jailHost{t, testutil.NewNamespace(t), fmt.Sprint("jts", os.Getpid()), filepath.Join(t.TempDir(), "root")}
	testutil.NeedRoot(t)
	outside := testutil.NewNamespace(t)
	h.ns.VethTo(t, outside, "em0", "out")
	h.ns.AddAddr(t, "em0", "10.1.1.254/24")
	outside.AddAddr(t, "out", "10.1.1.7/24")

	h.jailtap("world", "build", "--profile", "sshd", "-o", h.root).mustSucceed(t)
	key := h.letIn()
	conf := h.rcConf(`
jail_enable="YES"
jail_list="NAME"
jail_NAME_rootdir="ROOT"
jail_NAME_hostname="test.example.org"
jail_NAME_ip="10.1.1.1"
jail_NAME_interface="em0"
jail_NAME_devfs_enable="YES"
jail_NAME_exec_stop="true"
`)
	t.Cleanup(func() { h.jailtap("jail", "-r", "-f", conf, h.name) })
	h.jailtap("jail", "-c", "-f", conf, h.name).mustSucceed(t)

	// sshd listens at all addresses, which are one.
	if got := h.listening(); len(got) != 1 || got[0] != "tcp4 10.1.1.1:22 *:*" {
		t.Errorf("sshd listens at %q", got)
	}
	// Of the jail's sockets sockstat -j shows all, and none of the host's.
	listen(t, h.ns, "tcp4", "10.1.1.254:80")
	if out := h.jailtap("sockstat", "-q", "-4", "-l", "-j", h.name).mustSucceed(t).stdout; strings.Count(out, "\n") != 1 || !strings.Contains(out, "10.1.1.1:22") {
		t.Errorf("sockstat -j:\n%s", out)
	}
	for at, want := range map[string]bool{"10.1.1.1": true, "10.1.1.254": false, "127.0.0.1": false} {
		h.in(h.ns, func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(at, "22"), 5*time.Second)
			if err == nil {
				c.Close()
			}
			if (err == nil) != want {
				t.Errorf("from the host, %s: %v", at, err)
			}
			return nil
		})
	}
	h.in(outside, func() error {
		if c, err := net.DialTimeout("tcp", "10.1.1.254:22", 5*time.Second); err == nil {
			c.Close()
			t.Error("from outside, sshd is reached at the host's address")
		}
		return nil
	})

	// The capture needs no more than the jail's name.
	out := filepath.Join(t.TempDir(), "out.pcap")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := startIn(t, h.ns, exec.Command(self, "capture", "-j", h.name, "-w", out))
	p.waitFor(&p.stderr, "listening on em0")
	h.run(outside, "ping", "-c", "3", "-i", "0.2", "10.1.1.254")
	said := h.run(outside, "ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@10.1.1.1", "echo I am $(whoami) at $(uname -n)")
	if said != "I am root at test.example.org\n" {
		t.Errorf("ssh: %q", said)
	}
	p.end(syscall.SIGTERM).mustSucceed(t)
	packets := packetsIn(t, out)
	if len(packets) < 20 {
		t.Errorf("captured %d packets", len(packets))
	}
	for _, packet := range packets {
		if !isOf(packet, netip.MustParseAddr("10.1.1.1")) {
			t.Errorf("captured % x", packet.Data[:min(len(packet.Data), 54)])
		}
	}

	h.jailtap("jail", "-r", "-f", conf, h.name).mustSucceed(t)
	if got := h.listening(); len(got) != 0 {
		t.Errorf("after its end the jail listens at %q", got)
	}
	h.in(h.ns, func() error {
		if l, err := net.Listen("tcp", "10.1.1.1:22"); err == nil {
			l.Close()
			t.Error("the jail's address is left")
		}
		return nil
	})
}

// letIn makes a key that may log in as root.
func (h *jailHost) letIn() (key string) {
	h.Helper()
	key = filepath.Join(h.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		h.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err == nil {
		err = os.MkdirAll(filepath.Join(h.root, "root/.ssh"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(h.root, "root/.ssh/authorized_keys"), public, 0o600)
	}
	if err != nil {
		h.Fatal(err)
	}
	return key
}

// rcConf writes an rc.conf(5) with NAME and ROOT filled in.
func (h *jailHost) rcConf(text string) string {
	h.Helper()
	name := filepath.Join(h.TempDir(), "rc.conf")
	text = strings.NewReplacer("NAME", h.name, "ROOT", h.root).Replace(text)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
	return name
}

// listening is what sockstat(1) says that programs named sshd listen at.
func (h *jailHost) listening() (list []string) {
	h.Helper()
	for line := range strings.Lines(h.jailtap("sockstat", "-4", "-l").mustSucceed(h).stdout) {
		if f := strings.Fields(line); len(f) == 7 && f[1] == "sshd" {
			list = append(list, strings.Join(f[4:], " "))
		}
	}
	return list
}

func (h *jailHost) in(ns *testutil.Namespace, f func() error) {
	h.Helper()
	if err := ns.Do(f); err != nil {
		h.Fatal(err)
	}
}

// run runs a program in a namespace, and returns what it prints.
func (h *jailHost) run(ns *testutil.Namespace, name string, args ...string) string {
	h.Helper()
	return startIn(h.T, ns, exec.Command(name, args...)).end(0).mustSucceed(h).stdout
}

// isOf reports whether an IPv4 or ARP packet over Ethernet is to or from an address
// (RFC 791, RFC 826), or for all.
func isOf(p capfile.Packet, addr netip.Addr) bool {
	from, to := 26, 30
	if p.Data[12] == 8 && p.Data[13] == 6 {
		from, to = 28, 38
	}
	is := func(offset int) bool { return netip.AddrFrom4([4]byte(p.Data[offset:])) == addr }
	return is(from) || is(to)
}
