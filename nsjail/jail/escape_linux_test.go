//go:build amd64 || arm64

package jail

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a jail's root tries, and what comes of it.
func TestRootOfAJailStaysInside(t *testing.T) {
	y := newYard(t)
	path := tree(t)
	for _, d := range []struct {
		name string
		mode uint32
		dev  uint64
	}{{"tmp/mem", unix.S_IFCHR | 0o666, unix.Mkdev(1, 1)}, {"tmp/null", unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)}} {
		if err := unix.Mknod(filepath.Join(path, d.name), d.mode, int(d.dev)); err != nil {
			t.Fatal(err)
		}
	}
	j := y.must(Spec{Name: "a", Path: path})
	for what, line := range map[string]string{
		"writes to /proc/sys":                 "echo x > /proc/sys/kernel/core_pattern",
		"writes to /proc/sysrq-trigger":       "echo h > /proc/sysrq-trigger",
		"mounts":                              "mount -t tmpfs none /tmp",
		"unmounts what covers /proc":          "umount /proc/sys",
		"unmounts /proc":                      "umount /proc",
		"makes a device":                      "mknod /tmp/sda b 8 0",
		"makes a device in /dev":              "mknod /dev/sda b 8 0",
		"opens a device that was there":       "cat /tmp/null",
		"sees the first process's program":    "cat /proc/1/exe",
		"sees the first process's root":       "ls /proc/1/root/",
		"sees the first process's files":      "[ -n \"$(ls /proc/1/fd/)\" ]",
		"makes a user namespace":              "unshare -U true",
		"makes a mount namespace":             "unshare -m true",
		"makes a process namespace":           "unshare -p true",
		"changes the host name":               "hostname x",
		"sees processes of the host":          "[ -e /proc/" + fmt.Sprint(os.Getpid()) + "/status ]",
		"has a raw socket":                    "ping -c 1 -W 1 127.0.0.1",
		"leaves by a second chroot":           "mkdir -p /tmp/c/bin; cat /bin/busybox > /tmp/c/bin/sh; chroot /tmp/c /bin/sh -c 'cd ../../../../../..; [ -d work ]'",
		"sees a root other than its own":      "cd /proc/self/cwd/../../../../..; [ -e usr ]",
		"ends the first process":              "kill -9 1; sleep 0.2; [ ! -e /proc/1 ]",
		"sees the kernel's messages":          "[ -n \"$(cat /proc/kmsg)\" ]",
		"sees keys":                           "[ -n \"$(cat /proc/keys)\" ]",
		"sees a file system of the host's":    "cat /proc/self/mountinfo | while read a b c d e f; do case $e in /|/proc*|/dev*) ;; *) echo $e > /tmp/found;; esac; done; [ -e /tmp/found ]",
		"writes through /proc to the program": "echo x > /proc/self/exe.x",
	} {
		t.Run(what, func(t *testing.T) { j.fails(t, line) })
	}
	if gone := j.rec.First.alive(); !gone {
		t.Error("the first process has ended")
	}
	for what, line := range map[string]string{
		"devices work":                "echo x > /dev/null && [ -z \"$(cat /dev/null)\" ]",
		"there is memory to share":    "echo x > /dev/shm/x",
		"processes are seen":          "[ -e /proc/1/status ] && [ -e /proc/self/status ]",
		"the system is seen":          "[ -n \"$(cat /proc/meminfo)\" ] && [ -n \"$(cat /proc/sys/kernel/osrelease)\" ]",
		"a child of no one is reaped": "(sleep 0.1 &); sleep 0.3; [ $(ls /proc | while read p; do case $p in [0-9]*) cat /proc/$p/status;; esac; done 2>/dev/null | while read k v; do [ $k$v = 'State:Z (zombie)' ] && echo z; done | wc -l) = 0 ]",
	} {
		t.Run(what, func(t *testing.T) {
			if out, exit := j.run(t, line, User{}); exit != 0 {
				t.Errorf("%s", out)
			}
		})
	}
}

func TestALinkInAJailsTreeLeadsNoMountAstray(t *testing.T) {
	y := newYard(t)
	victim := t.TempDir()
	for _, name := range []string{"proc", "dev"} {
		path := tree(t)
		os.RemoveAll(filepath.Join(path, name))
		if err := os.Symlink(victim, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
		spec := Spec{Name: "a", Path: path, Network: NoNetwork, Persist: true, Procfs: true, Devfs: true}
		if _, err := y.Create(t.Context(), spec, Starter{}); err == nil || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := tree(t)
	if err := os.Symlink(victim, filepath.Join(path, "data")); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Name: "a", Path: path, Network: NoNetwork, Persist: true, Mounts: []Mount{{Type: "tmpfs", Target: "data"}}}
	if _, err := y.Create(t.Context(), spec, Starter{}); err == nil || !strings.Contains(err.Error(), "data: part of it is a symbolic link") {
		t.Errorf("%v", err)
	}
}

func TestTheConsoleLogIsAFileOfTheJailOrAnError(t *testing.T) {
	y := newYard(t)
	victim := filepath.Join(t.TempDir(), "victim")
	for name, make := range map[string]func(log string) error{
		"a link": func(log string) error { return os.Symlink(victim, log) },
		"a pipe": func(log string) error { return unix.Mkfifo(log, 0o666) },
		"a link above it": func(log string) error {
			os.Remove(filepath.Dir(log))
			return os.Symlink(filepath.Dir(victim), filepath.Dir(log))
		},
	} {
		path := tree(t)
		if err := make(filepath.Join(path, consoleLog)); err != nil {
			t.Fatal(err)
		}
		spec := Spec{Name: "a", Path: path, Network: NoNetwork, Persist: true, Commands: Commands{Start: []string{"echo x"}}}
		if _, err := y.Create(t.Context(), spec, Starter{}); err == nil || !strings.Contains(err.Error(), "not a file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(victim)); len(entries) > 0 {
		t.Errorf("%v was written to", entries)
	}
}
