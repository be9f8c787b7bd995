package world_test

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

// kernel is one for qemu: that of a cloud image, or what .ci/setup has fetched.
func kernel(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/boot/vmlinuz-*cloud-amd64", "../../bin/vmlinuz"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	testutil.Skip(t, "no kernel to boot: .ci/setup fetches one")
	return ""
}

func TestAnInitramfsBootsToAShell(t *testing.T) {
	image := kernel(t)
	for _, name := range []string{"busybox", "minimal"} {
		t.Run(name, func(t *testing.T) {
			cpio, _ := build(t, builtin(t, name), world.Options{Format: world.Initramfs})
			m := bootMachine(t, image, cpio)
			m.expect("# ")
			m.say("echo $((6 * 7)) is $(id -u) from $PPID; ls -d /proc/1")
			m.expect("42 is 0 from 1\r\n/proc/1\r\n")
		})
	}
}

// A machine is one that qemu makes up; its serial line is the test's.
type machine struct {
	t    *testing.T
	in   io.Writer
	said *bufio.Reader
}

// bootMachine boots a kernel with a first root. It needs no help of the processor.
func bootMachine(t *testing.T, kernel, initrd string) *machine {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		testutil.Skip(t, "qemu-system-x86_64 is not there")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-no-reboot",
		"-display", "none", "-serial", "stdio", "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &machine{t, in, bufio.NewReader(out)}
}

func (m *machine) say(line string) {
	m.t.Helper()
	if _, err := io.WriteString(m.in, line+"\n"); err != nil {
		m.t.Fatal(err)
	}
}

// expect reads until the machine has said something.
func (m *machine) expect(words string) {
	m.t.Helper()
	var text strings.Builder
	for !strings.HasSuffix(text.String(), words) {
		b, err := m.said.ReadByte()
		if err != nil {
			m.t.Fatalf("no %q, but: %s", words, text.String())
		}
		text.WriteByte(b)
	}
}
