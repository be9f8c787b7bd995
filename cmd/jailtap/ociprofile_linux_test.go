//go:build amd64 || arm64

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/loader/agent/oci"
)

// In a container the test binary is a program that tells which of its calls were
// held back, and which were refused as none of the kernel's own refusals.
func init() {
	if filepath.Base(os.Args[0]) == "probe" {
		probe()
		os.Exit(0)
	}
}

// refused is the errno that engineProfile refuses with.
const refused = unix.EDQUOT

func probe() {
	report := func(what string, err error) {
		switch err {
		case unix.ENOSYS: // the listener is closed
			fmt.Println(what, "held back")
		case refused:
			fmt.Println(what, "refused")
		}
	}
	for family := range 64 {
		fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		report(fmt.Sprint("socket ", family), err)
		unix.Close(fd)
	}
	for _, level := range []int{unix.SOL_IP, unix.SOL_SOCKET, unix.SOL_TCP, unix.SOL_PACKET} {
		for option := range 300 {
			report(fmt.Sprint("setsockopt ", level, " ", option), unix.SetsockoptInt(-1, level, option, 0))
		}
	}
	report("mkdir", unix.Mkdir("/tmp/x", 0o700))
	report("getpid", unix.Prctl(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
}

const heldBack = `socket 17 held back
setsockopt 1 26 held back
setsockopt 1 27 held back
setsockopt 1 44 held back
setsockopt 1 50 held back
`

// engineProfile is as those of engines are: what it does not name is refused, and
// sockets of one family only by that (AF_VSOCK, 40).
const engineProfile = `{
	"defaultAction": "SCMP_ACT_ERRNO",
	"defaultErrnoRet": 122,
	"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
	"syscalls": [
		{
			"names": [
				"access", "arch_prctl", "bind", "brk", "capget", "capset", "chdir", "clone", "clone3", "close", "close_range",
				"connect", "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "execve", "exit",
				"exit_group", "faccessat", "faccessat2", "fchdir", "fchown", "fcntl", "fstat", "fstatfs", "futex", "getcwd",
				"getdents64", "getegid", "geteuid", "getgid", "getpgrp", "getpid", "getppid", "getrandom", "getrlimit",
				"getsockname", "getsockopt", "gettid", "getuid", "ioctl", "lseek", "madvise", "mmap", "mprotect", "mremap",
				"munmap", "nanosleep", "newfstatat", "openat", "pipe2", "poll", "ppoll", "prctl", "pread64", "prlimit64",
				"read", "readlinkat", "readlink", "recvfrom", "recvmsg", "restart_syscall", "rseq", "rt_sigaction",
				"rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "sendmsg", "sendto",
				"set_robust_list", "set_tid_address", "setgid", "setgroups", "setitimer", "setsockopt", "setuid",
				"sigaltstack", "stat", "statfs", "statx", "sysinfo", "tgkill", "umask", "uname", "wait4", "write", "writev"
			],
			"action": "SCMP_ACT_ALLOW"
		},
		{
			"names": ["socket"],
			"action": "SCMP_ACT_ALLOW",
			"args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}],
			"comment": "", "includes": {}, "excludes": {}
		}
	]
}`

// deafSocket is where runtimes find somebody who takes listeners and closes them.
func deafSocket(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "deaf.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			text, control := make([]byte, 4096), make([]byte, 1024)
			_, n, _, _, _ := conn.ReadMsgUnix(text, control)
			messages, _ := unix.ParseSocketControlMessage(control[:n])
			for _, m := range messages {
				fds, _ := unix.ParseUnixRights(&m)
				for _, fd := range fds {
					unix.Close(fd)
				}
			}
			conn.Close()
		}
	}()
	return path
}

func TestAProfileHoldsBackWhatTheAgentKnowsAndNothingElse(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, _ := lab(t)
		base := filepath.Join(t.TempDir(), "engine.json")
		if err := os.WriteFile(base, []byte(engineProfile), 0o600); err != nil {
			t.Fatal(err)
		}
		socket := deafSocket(t)
		for flags, want := range map[string]string{
			"":                heldBack,
			"--merge " + base: strings.Replace(heldBack, "setsockopt", "socket 40 refused\nsetsockopt", 1) + "mkdir refused\n",
		} {
			c := newContainer(t, runtime, host, "probe", "exec probe").profile(flags + " --listener " + socket)
			if r := c.start().end(0).mustSucceed(t); r.stdout != want {
				t.Errorf("%s\n%s%s", flags, r.stdout, r.stderr)
			}
			c.command("delete", "--force", c.id).Run()
		}
	})
}

func TestTcpdumpRunsUnderAnEnginesProfileWithOurs(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		base := filepath.Join(t.TempDir(), "engine.json")
		if err := os.WriteFile(base, []byte(engineProfile), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newContainer(t, runtime, host, "merged", capture5).profile("-a 10.0.0.1 --merge " + base + " --listener " + d.socket).start()
		p.waitFor(&p.stderr, "listening on")
		mustHaveCaptured(t, untilItEnds(t, outside, p), "10.0.0.1")
	})
}

func TestOfAProfileThatCannotBeMergedNothingIsPrinted(t *testing.T) {
	for text, words := range map[string]string{
		"x":                   "not a seccomp profile",
		"{}":                  "no defaultAction",
		`{"defaultAction":1}`: "not a seccomp profile",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscall":[]}`:                                              `unknown field "syscall"`,
		`{"defaultAction":"SCMP_ACT_ALLOW"}{}`:                                                         "more behind it",
		`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/x"}`:                                   `a listener already, "/run/x"`,
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_NOTIFY"}]}`: "notifies a listener of bpf",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_KILL"}]}`:                   "rule 1 of the profile: it names no calls",
	} {
		jailtapWith(t, text, "oci profile --merge -").mustFail(t, 1, words)
	}
}

func TestTheFlagsOfAProfileAreChecked(t *testing.T) {
	for line, words := range map[string]string{
		"oci":                       "name a command: profile",
		"oci profile x":             `unknown command "x"`,
		"oci profile -a 10.0.0.300": `bad address "10.0.0.300"`,
		"oci profile --policy most": `unknown policy "most"`,
		"oci profile --vlan 5000":   `bad VLAN "5000"`,
	} {
		jailtap(t, line).mustFail(t, 2, words)
	}
	r := jailtap(t, "oci profile -a 10.0.0.5,fd00::/64 --vlan 7").mustSucceed(t)
	for _, words := range []string{
		`"listenerMetadata": "{\"jailtap.address\":\"10.0.0.5/32,fd00::/64\",\"jailtap.vlan\":\"7\"}"`,
		`"listenerPath": "` + oci.DefaultListener + `"`,
	} {
		if !strings.Contains(r.stdout, words) {
			t.Errorf("no %s in\n%s", words, r.stdout)
		}
	}
}

func TestTheSettingsOfAContainerAreOfOneSource(t *testing.T) {
	annotations := map[string]string{ociAddress: "10.0.0.1", "other": "x"}
	for metadata, want := range map[string]string{
		"": "addresses 10.0.0.1, policy full",
		`{"jailtap.address":"10.0.0.2/31, fd00::1","jailtap.policy":"classic"}`: "addresses 10.0.0.2/31, fd00::1, policy classic",
		`{"jailtap.vlan":"7"}`: "addresses (none), policy full, VLAN 7",
	} {
		settings, err := ociSettings(metadata, annotations)
		if err != nil {
			t.Fatal(err)
		}
		source, err := ociScope(settings)
		if err != nil || source.describe(source.with(nil)) != want {
			t.Errorf("%s: %v, %v", metadata, source, err)
		}
	}
	for _, metadata := range []string{"10.0.0.1", "[]", `{"jailtap.addres":"10.0.0.1"}`, `{"jailtap.address":1}`} {
		if settings, err := ociSettings(metadata, annotations); err == nil {
			t.Errorf("%s: %v", metadata, settings)
		}
	}
}
