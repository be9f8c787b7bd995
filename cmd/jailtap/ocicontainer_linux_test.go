//go:build amd64 || arm64

package main

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"jailtap/internal/testutil"
)

// eachRuntime runs a test with the container runtimes that there are packages of.
func eachRuntime(t *testing.T, test func(t *testing.T, runtime string)) {
	testutil.NeedRoot(t)
	needTool(t, "busybox")
	needTool(t, "tcpdump")
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			needTool(t, runtime)
			test(t, runtime)
		})
	}
}

// A container is one that a runtime makes of a bundle.
type container struct {
	t       *testing.T
	runtime string
	dir     string // the bundle, and beside it what the runtime keeps
	id      string
	host    *testutil.Namespace // where the runtime is
	spec    specs.Spec
}

// newContainer is a container with host's network, where a user without
// capabilities runs a shell script. What else it is to have goes into its spec.
func newContainer(t *testing.T, runtime string, host *testutil.Namespace, id, script string) *container {
	t.Helper()
	c := &container{t: t, runtime: runtime, dir: t.TempDir(), id: id, host: host}
	c.spec = specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: c.root()},
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/",
			User: specs.User{UID: 1000, GID: 1000}, Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true,
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Annotations: map[string]string{},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		}},
	}
	t.Cleanup(func() { c.command("delete", "--force", c.id).Run() })
	return c
}

// profile sets the seccomp profile, as jailtap prints it for some flags.
func (c *container) profile(flags string) *container {
	c.t.Helper()
	c.spec.Linux.Seccomp = &specs.LinuxSeccomp{}
	text := jailtap(c.t, "oci profile "+flags).mustSucceed(c.t).stdout
	if err := json.Unmarshal([]byte(text), c.spec.Linux.Seccomp); err != nil {
		c.t.Fatal(err)
	}
	return c
}

func (c *container) annotate(name, value string) *container {
	c.spec.Annotations[name] = value
	return c
}

// root makes a root file system of busybox, tcpdump and the test binary.
func (c *container) root() string {
	c.t.Helper()
	root := filepath.Join(c.dir, "root")
	for _, dir := range []string{"bin", "etc", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, program := range []string{"busybox", "tcpdump"} {
		path, err := exec.LookPath(program)
		if err != nil {
			c.t.Fatal(err)
		}
		copyProgram(c.t, path, root, "bin/"+program)
	}
	copyProgram(c.t, "/proc/self/exe", root, "bin/probe")
	for _, name := range []string{"sh", "sleep", "cat", "id", "mkdir"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			c.t.Fatal(err)
		}
	}
	// tcpdump gives up user 0 for this one, where it was built to.
	users := "root:x:0:0::/:/bin/sh\ntcpdump:x:100:100::/:/bin/sh\n"
	groups := "root:x:0:\ntcpdump:x:100:\n"
	err := errors.Join(
		os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(users), 0o644),
		os.WriteFile(filepath.Join(root, "etc/group"), []byte(groups), 0o644))
	if err != nil {
		c.t.Fatal(err)
	}
	return root
}

// copyProgram copies a program and what it is linked with.
func copyProgram(t *testing.T, path, root, as string) {
	t.Helper()
	copyFile(t, path, filepath.Join(root, as))
	pending := []string{path}
	for len(pending) > 0 {
		f, err := elf.Open(pending[0])
		if err != nil {
			t.Fatal(err)
		}
		pending = pending[1:]
		libraries, err := f.ImportedLibraries()
		if err != nil {
			t.Fatal(err)
		}
		if loader := interpreter(f); loader != "" {
			libraries = append(libraries, loader)
		}
		f.Close()
		for _, name := range libraries {
			found := findLibrary(t, name)
			to := filepath.Join(root, found)
			if _, err := os.Stat(to); err == nil {
				continue
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			copyFile(t, found, to)
			pending = append(pending, found)
		}
	}
}

// interpreter is the dynamic loader that a program asks for; "": none.
func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, _ := io.ReadAll(p.Open())
			return strings.TrimRight(string(name), "\x00")
		}
	}
	return ""
}

func findLibrary(t *testing.T, name string) string {
	t.Helper()
	if filepath.IsAbs(name) {
		return name
	}
	for _, pattern := range []string{"/lib/*-linux-gnu/", "/usr/lib/*-linux-gnu/", "/lib64/", "/usr/lib64/", "/lib/", "/usr/lib/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("no library %s", name)
	return ""
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// command is a command of the runtime. crun refuses to work where both versions
// of cgroups have controllers, so it is shown the second only.
func (c *container) command(args ...string) *exec.Cmd {
	words := []string{c.runtime, "--root", filepath.Join(c.dir, "state")}
	if c.runtime == "crun" {
		const script = `! [ -e /sys/fs/cgroup/unified ] || mount -t cgroup2 none /sys/fs/cgroup; exec "$@"`
		words = append([]string{"unshare", "--mount", "sh", "-c", script, "sh"}, append(words, "--cgroup-manager=disabled")...)
	}
	words = append(words, args...)
	return exec.Command(words[0], words[1:]...)
}

// start runs the container.
func (c *container) start() *process {
	c.t.Helper()
	text, err := json.Marshal(c.spec)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, "config.json"), text, 0o644); err != nil {
		c.t.Fatal(err)
	}
	return startIn(c.t, c.host, c.command("run", "--bundle", c.dir, c.id))
}

// exec runs a command in the running container.
func (c *container) exec(args ...string) *process {
	c.t.Helper()
	return startIn(c.t, c.host, c.command(append([]string{"exec", "--user", "1000:1000", c.id}, args...)...))
}

// startIn starts a process in a namespace.
func startIn(t *testing.T, ns *testutil.Namespace, cmd *exec.Cmd) (p *process) {
	t.Helper()
	err := ns.Do(func() error {
		p = startCommand(t, cmd, nil)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
