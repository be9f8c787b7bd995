//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const jailRounds = 41

// A starter is one way to run a command in namespaces of its own, from a fresh
// process and back.
type starter struct {
	name  string
	argv  []string
	needs string // a program
}

// starters run true(1) of a root directory. The namespaces are those of mounts,
// processes, host names, IPC, control groups and, but for plain, the network.
func starters(jailtap, nothing, root, bundle string) []starter {
	return []starter{
		{"fork and exec", []string{filepath.Join(root, "bin/true")}, ""},
		{"unshare(1)", []string{"unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net", "--fork", "--root", root, "/bin/true"}, "unshare"},
		{"bwrap(1)", []string{"bwrap", "--unshare-all", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"}, "bwrap"},
		{"`jailtap jail -c`", []string{jailtap, "jail", "-c", "name=bench", "path=" + root, "command=/bin/true"}, ""},
		{"… of which the start of the program", []string{jailtap, "jail", "--help"}, ""},
		{"a Go program that does nothing", []string{nothing}, "go"},
		{"crun, without a cgroup and after a shell", []string{"unshare", "--mount", "sh", "-c", onlyCgroup2, "sh",
			"crun", "--cgroup-manager=disabled", "run", "--bundle", bundle, "jailtap-bench"}, "crun"},
		{"runc", []string{"runc", "run", "--bundle", bundle, "jailtap-bench"}, "runc"},
	}
}

// onlyCgroup2 is for crun, which refuses to work where both versions have controllers.
const onlyCgroup2 = `! [ -e /sys/fs/cgroup/unified ] || mount -t cgroup2 none /sys/fs/cgroup; exec "$@"`

// benchJails measures how long it takes to a command in a jail and back.
func benchJails(w io.Writer, jailtap string, rounds int) error {
	dir, err := os.MkdirTemp("", "jailtap-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := makeBundle(dir); err != nil {
		return err
	}
	nothing, err := makeNothing(dir)
	if err != nil {
		return err
	}
	all := starters(jailtap, nothing, filepath.Join(dir, "rootfs"), dir)
	times := make([][]time.Duration, len(all))
	for range rounds {
		for i, s := range all {
			if _, err := exec.LookPath(s.needs); s.needs != "" && err != nil {
				continue
			}
			start := time.Now()
			if out, err := exec.Command(s.argv[0], s.argv[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(s.argv, " "), err, out)
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	fmt.Fprintf(w, "\n## Jails\n\nFrom a command that makes one to the end of a static true(1) in it, and all gone: medians of %d.\n\n", rounds)
	fmt.Fprint(w, "| started by | ms | of bwrap |\n| --- | --- | --- |\n")
	bwrap := median(times[2])
	for i, s := range all {
		if len(times[i]) == 0 {
			fmt.Fprintf(w, "| %s | not there | |\n", s.name)
			continue
		}
		took := median(times[i])
		fmt.Fprintf(w, "| %s | %.1f | %s |\n", s.name, ms(took), ratio(took, bwrap))
	}
	return nil
}

// ratio is one time in others, or nothing if there is no other.
func ratio(a, b time.Duration) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

// makeNothing makes a program that only starts and ends: no program of Go takes less.
// Where there is no compiler there is no such program.
func makeNothing(dir string) (program string, err error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", nil
	}
	source, program := filepath.Join(dir, "nothing.go"), filepath.Join(dir, "nothing")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", program, source)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(build.Args, " "), err, out)
	}
	return program, nil
}

// makeBundle makes a container's bundle (runtime-spec, bundle.md), whose root is that
// of the others too.
func makeBundle(dir string) error {
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "dev", "proc", "tmp", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w (Debian: busybox-static)", err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/true"), program, 0o755); err != nil {
		return err
	}
	spec := specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: "rootfs"}, Hostname: "bench",
		Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/bin"}, NoNewPrivileges: true},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.UTSNamespace},
			{Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
}
