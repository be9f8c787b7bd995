package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

func TestWorldCommandLinesWithoutSenseEndWithStatus2(t *testing.T) {
	for line, words := range map[string]string{
		"world":                                            "name a command: build, check, list, diff, update",
		"world build -o x":                                 "say what goes in with --profile NAME|FILE or --bin NAME",
		"world build --bin s":                              "say where to with -o PATH",
		"world build --profile maximal -o x":               `unknown profile "maximal": built in are busybox`,
		"world build --bin sh --format zip -o x":           `unknown format "zip"`,
		"world build --bin sh --update --force -o x":       "exclude one another",
		"world build --bin sh --link --format tar -o x":    "--link is about a folder, not tar",
		"world build --bin sh --user web:x -o x":           `bad user "web:x"`,
		"world build --bin sh --overlay /worlds/base -o x": "--overlay takes a world as it is",
		"world build --overlay /worlds/base":               "say where to with -o PATH",
		"world diff --profile minimal /worlds/a /worlds/b": "compared as they are",
	} {
		jailtap(t, line).mustFail(t, 2, words)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	jailtap(t, "world build --bin sh -o x").mustFail(t, 2, `bad SOURCE_DATE_EPOCH "yesterday"`)
}

func TestWorldCommandsHelpWithExamples(t *testing.T) {
	for _, command := range []string{"", " build", " check", " list", " diff", " update"} {
		r := jailtap(t, "world"+command+" --help").mustSucceed(t)
		if !strings.Contains(r.stdout, "Examples:\n  jailtap world") {
			t.Errorf("world%s --help has no example:\n%s", command, r.stdout)
		}
	}
}

// The life of a world, by the command alone.
func TestAWorldIsBuiltListedCheckedComparedAndUpdated(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "web")
	r := jailtap(t, "world build --bin sh --bin cat --bin surely-not-there? --user web -o "+dir).mustSucceed(t)
	for _, words := range []string{"left out: surely-not-there\n", dir + ": ", " MB in "} {
		if !strings.Contains(r.stderr, words) {
			t.Errorf("no %q in %q", words, r.stderr)
		}
	}
	r = jailtap(t, "world list "+dir).mustSucceed(t)
	if !strings.Contains(r.stdout, " /etc/passwd\n") || !strings.Contains(r.stderr, " files, ") {
		t.Errorf("%q, %q", r.stdout, r.stderr)
	}
	if r = jailtap(t, "world check "+dir).mustSucceed(t); r.stdout != "" {
		t.Errorf("check: %q", r.stdout)
	}
	if r = jailtap(t, "world diff "+dir).mustSucceed(t); r.stdout != "" {
		t.Errorf("diff: %q", r.stdout)
	}

	passwd, err := os.ReadFile(filepath.Join(dir, "etc/passwd"))
	if err != nil || !strings.Contains(string(passwd), "\nweb:x:1000:1000::/home/web:/bin/sh\n") {
		t.Errorf("passwd: %q, %v", passwd, err)
	}
	if err := os.Remove(filepath.Join(dir, "usr/bin/cat")); err != nil {
		t.Fatal(err)
	}
	if r = jailtap(t, "world diff "+dir).mustSucceed(t); r.stdout != "added   /usr/bin/cat\n" {
		t.Errorf("diff: %q", r.stdout)
	}
	var made world.Result
	r = jailtap(t, "world update --json "+dir).mustSucceed(t)
	if err := json.Unmarshal([]byte(r.stdout), &made); err != nil || strings.Join(made.Changed, " ") != "/usr/bin/cat" {
		t.Errorf("update: %q, %v", r.stdout, err)
	}
}

func TestACheckThatFindsSomethingEndsWithStatus1(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	r := jailtap(t, "world check "+dir)
	if r.status != 1 || r.stdout != "/link: link to nowhere, which is not there\n" || !strings.HasSuffix(r.stderr, ": 1 problem\n") {
		t.Errorf("%+v", r)
	}
}

func TestAProfileInAFileIsRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(file, []byte("bins: [cat]\nbin: [sh]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	jailtap(t, "world build --profile "+file+" -o "+dir+"/web").mustFail(t, 1, `unknown field "bin"`)
	if err := os.WriteFile(file, []byte("bins: [cat]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	jailtap(t, "world build --profile "+file+" -o "+dir+"/web").mustSucceed(t)
	if _, err := os.Stat(dir + "/web/usr/bin/cat"); err != nil {
		t.Error(err)
	}
}

// A trace finds what no ELF file tells: awk's locale, for instance, is opened by name.
func TestATraceBringsWhatABinaryOpens(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		testutil.Skip(t, "strace is not there")
	}
	dir := t.TempDir()
	data, script := filepath.Join("/usr/share", filepath.Base(dir)+filepath.Base(filepath.Dir(dir))), filepath.Join(dir, "script")
	testutil.NeedRoot(t)
	if err := os.WriteFile(data, []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(data) })
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread -r line <"+data+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]bool{"": false, "--trace ": true} {
		to := filepath.Join(t.TempDir(), "world")
		jailtap(t, "world build "+flag+"--bin "+script+" -o "+to).mustSucceed(t)
		if _, err := os.Stat(to + data); (err == nil) != want {
			t.Errorf("%q: %v", flag, err)
		}
	}
}

// SIGTERM comes while the layer of an image is compressed, which takes longest.
func TestATerminatedBuildLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "world", "build", "--profile", "interactive", "--file", "/usr/bin/qemu-system-x86_64?", "--format", "oci", "-o", filepath.Join(dir, "image"))
	cmd.Env = append(os.Environ(), "JAILTAP_TEST_MAIN=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	layer := filepath.Join(dir, ".image.partial", "layer.tar")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(layer); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no layer")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestAnOverlayIsMountedByTheCommand(t *testing.T) {
	testutil.NeedRoot(t)
	ready, jail := filepath.Join(t.TempDir(), "ready"), filepath.Join(t.TempDir(), "jail")
	jailtap(t, "world build --profile busybox -o "+ready).mustSucceed(t)
	r := jailtap(t, "world build --overlay "+ready+" -o "+jail).mustSucceed(t)
	t.Cleanup(func() { syscall.Unmount(jail, syscall.MNT_DETACH) })
	if !strings.Contains(r.stderr, ready+" under a layer, in ") {
		t.Errorf("%q", r.stderr)
	}
	if _, err := os.Stat(jail + "/bin/busybox"); err != nil {
		t.Error(err)
	}
}
