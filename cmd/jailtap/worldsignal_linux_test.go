package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

// A signal comes when what is made is there under its other name, and not whole.
func TestASignalInABuildLeavesNothing(t *testing.T) {
	many := manyFiles(t)
	for _, format := range world.Formats {
		if format == world.OCI {
			continue // TestATerminatedBuildLeavesNothing
		}
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			t.Run(string(format)+" "+signal.String(), func(t *testing.T) {
				if _, err := exec.LookPath("mksquashfs"); err != nil && format == world.Squashfs {
					testutil.Skip(t, "mksquashfs is not there")
				}
				dir := t.TempDir()
				p := startBuild(t, "--bin", "sh", "--file", many, "--format", string(format), "-o", filepath.Join(dir, "web"))
				p.stopWith(filepath.Join(dir, ".web.partial"))
				p.signal(signal, syscall.SIGCONT)
				err := p.cmd.Wait()
				if err == nil || strings.Contains(p.said.String(), " files, ") {
					t.Errorf("it ended well: %v, %q", err, p.said.String())
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("left: %v, %v", left, err)
				}
			})
		}
	}
}

// manyFiles is a folder that takes a while.
func manyFiles(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "many")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 4000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(strings.Repeat("x", 4096)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A building is a build that is at work in a process.
type building struct {
	*testing.T
	cmd  *exec.Cmd
	said strings.Builder
}

func startBuild(t *testing.T, args ...string) *building {
	t.Helper()
	p := &building{T: t, cmd: exec.Command("/proc/self/exe", append([]string{"world", "build"}, args...)...)}
	p.cmd.Env = append(os.Environ(), "JAILTAP_TEST_MAIN=1")
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// stopWith stops it when a file is there, and checks that it is there still: then it was
// stopped in the middle.
func (p *building) stopWith(file string) {
	p.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		if _, err := os.Lstat(file); err == nil {
			break
		}
		if time.Now().After(deadline) {
			p.Fatalf("no %s", file)
		}
	}
	p.signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		p.Fatal(err)
	}
	if _, err := os.Lstat(file); err != nil {
		p.Fatalf("it was quicker than this test: %v", err)
	}
}

func (p *building) signal(signals ...syscall.Signal) {
	p.Helper()
	for _, s := range signals {
		if err := p.cmd.Process.Signal(s); err != nil {
			p.Fatal(err)
		}
	}
}
