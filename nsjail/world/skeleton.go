package world

import (
	"io/fs"
	"path"
	"strings"
)

// skeleton puts what every system has and nobody asks for. What the profile
// brings goes before it.
func (c *collector) skeleton() error {
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{
		{"dev", 0o755}, {"etc", 0o755}, {"home", 0o755}, {"proc", 0o555}, {"root", 0o700}, {"run", 0o755}, {"sys", 0o555},
		{"tmp", 0o777 | fs.ModeSticky}, {"usr", 0o755}, {"usr/bin", 0o755}, {"usr/sbin", 0o755},
		{"var", 0o755}, {"var/cache", 0o755}, {"var/empty", 0o755}, {"var/lib", 0o755}, {"var/log", 0o755},
		{"var/spool", 0o755}, {"var/tmp", 0o777 | fs.ModeSticky},
	} {
		c.own(&Entry{Path: dir.path, Mode: fs.ModeDir | dir.mode})
	}
	c.own(&Entry{Path: "var/run", Mode: fs.ModeSymlink | 0o777, Link: "/run"})
	c.text("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n")
	c.text("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	c.text("etc/resolv.conf", 0o644, c.t.resolvConf())
	c.text("etc/profile", 0o644, c.profile())
	c.devices()
	return nil
}

// own puts an entry of the skeleton, if nothing is in its place.
func (c *collector) own(e *Entry) {
	if old := c.m[e.Path]; old != nil && (old.from != nil || !e.Mode.IsDir() || !old.Mode.IsDir()) {
		return
	}
	e.Size = int64(len(e.content))
	if err := c.m.put(e); err != nil {
		c.missing = append(c.missing, err)
	}
}

func (c *collector) text(name string, mode fs.FileMode, content string) {
	c.own(&Entry{Path: name, Mode: mode, content: content})
}

// profile is /etc/profile, for sh.
func (c *collector) profile() string {
	text := "PATH=" + strings.Join(searchPath, ":") + "\nexport PATH\n"
	if c.m["usr/lib/locale/C.utf8"] != nil {
		text += ": ${LANG:=C.UTF-8}\nexport LANG\n"
	}
	return text + `: ${TERM:=linux}
export TERM
if [ "$(id -u 2>/dev/null)" = 0 ]; then PS1='# '; else PS1='$ '; fi
umask 022
`
}

// resolvConf is that of the system or, if there a resolver on the loopback
// answers, which a jail does not reach, the one that resolver was given
// (systemd-resolved(8)).
func (t *tree) resolvConf() string {
	for _, file := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		if text, err := t.readFile(file); err == nil && !strings.Contains(text, "nameserver 127.") {
			return text
		}
	}
	return ""
}

// devices are those that every program may expect, and that do no harm.
// Archives have none: who unpacks them has a /dev of their own.
func (c *collector) devices() {
	if c.o.Format != Dir && c.o.Format != Squashfs {
		return
	}
	const char = fs.ModeDevice | fs.ModeCharDevice
	for _, d := range []struct { // numbers: Documentation/admin-guide/devices.txt of Linux
		name         string
		major, minor uint32
	}{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	} {
		c.own(&Entry{Path: path.Join("dev", d.name), Mode: char | 0o666, Major: d.major, Minor: d.minor})
	}
	c.own(&Entry{Path: "dev/fd", Mode: fs.ModeSymlink | 0o777, Link: "/proc/self/fd"})
}
