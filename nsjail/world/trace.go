package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"
)

// traceLimit is how long a traced binary may run.
const traceLimit = 10 * time.Second

// trace runs the binaries of the profile with --help, and brings what they
// open. This is the one place that runs anything, and it runs what is in the
// system.
func (c *collector) trace() error {
	if !c.o.Trace {
		return nil
	}
	if path.Clean(c.o.System) != "/" {
		return fmt.Errorf("a trace runs the binaries of this system, and not those in %s", c.o.System)
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		return fmt.Errorf("a trace needs strace(1): install it: %w", err)
	}
	dir, err := os.MkdirTemp("", "jailtap-trace-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, bin := range c.p.Bins {
		name, _ := optional(bin)
		at, err := c.command(name)
		if err != nil {
			continue // it is absent, or one of Options.Commands
		}
		opened, err := traceOne(c.ctx, strace, dir, "/"+at.path)
		if err != nil {
			return err
		}
		for _, file := range opened {
			if err := c.bringTraced(file, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// traceOne is the files that a binary opens to read, or maps, until it ends.
func traceOne(ctx context.Context, strace, dir, bin string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, traceLimit)
	defer cancel()
	log := path.Join(dir, "log")
	// -D makes the binary, not strace, the child that is waited for and killed.
	cmd := exec.CommandContext(ctx, strace, "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,execve", "-o", log, "--", bin, "--help")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + strings.Join(searchPath, ":"), "HOME=" + dir, "LANG=C.UTF-8", "TERM=linux"}
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited && ctx.Err() == nil {
		return nil, fmt.Errorf("strace %s: %w", bin, err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, fmt.Errorf("strace %s: %w", bin, err)
	}
	return openedIn(string(text)), nil
}

// opening is a call that went well, of an absolute path.
var opening = pattern(`^\d+ +(?:open\(|openat\(AT_FDCWD, |execve\()"(/[^"\\]*)", (?:(O_[A-Z_|]*)|\[).* = \d+$`)

// openedIn reads what strace wrote.
func openedIn(log string) (files []string) {
	for line := range strings.Lines(log) {
		m := opening().FindStringSubmatch(strings.TrimSpace(line))
		if m != nil && !strings.Contains(m[2], "O_WRONLY") && !strings.Contains(m[2], "O_RDWR") {
			files = append(files, path.Clean(m[1]))
		}
	}
	return files
}

// bringTraced brings a file that was opened, if it belongs to the system and
// anybody may read it: what only the caller may read is for the profile to name.
func (c *collector) bringTraced(file, by string) error {
	top, _, _ := strings.Cut(file[1:], "/")
	switch top {
	case "usr", "lib", "lib32", "lib64", "bin", "sbin", "etc", "opt":
	default:
		return nil
	}
	switch file {
	case "/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/resolv.conf":
		return nil // the skeleton has its own
	}
	at, ok := c.t.isFile(file)
	if !ok || at.info.Mode()&0o004 == 0 {
		return nil
	}
	return c.bring(file, by)
}
