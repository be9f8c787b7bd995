package world_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

func TestContainerRuntimesRunTheImage(t *testing.T) {
	testutil.NeedRoot(t)
	p := builtin(t, "minimal").With(world.Profile{Users: []world.User{{Name: "web"}}})
	dir, _ := build(t, p, world.Options{Format: world.OCI})
	image := onlyImage(t, dir)
	if err := validate.Image(image); err != nil {
		t.Fatal(err)
	}
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) {
			if _, err := exec.LookPath(runtime); err != nil {
				testutil.Skip(t, "%s is not there", runtime)
			}
			bundle := unpack(t, image, "id web; ls -d /tmp /var/empty")
			out, err := runtimeCommand(runtime, bundle, "run", "--bundle", bundle, "jailtap-world-"+runtime).CombinedOutput()
			if want := "uid=1000(web) gid=1000(web) groups=1000(web)\n/tmp\n/var/empty\n"; err != nil || string(out) != want {
				t.Errorf("%v: %q, want %q", err, out, want)
			}
		})
	}
}

// onlyImage is the one image of a layout.
func onlyImage(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 1 {
		t.Fatalf("%v, %v", m, err)
	}
	image, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// unpack makes a bundle of an image (bundle.md of the OCI runtime specification), in
// which its command runs a script.
func unpack(t *testing.T, image v1.Image, script string) (bundle string) {
	t.Helper()
	bundle = t.TempDir()
	root := filepath.Join(bundle, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	layers := mutate.Extract(image)
	defer layers.Close()
	tar := exec.Command("tar", "-x", "-p", "--numeric-owner", "-C", root)
	tar.Stdin = layers
	if out, err := tar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{Args: append(config.Config.Cmd, "-c", script), Env: config.Config.Env, Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}},
	})
	if err := errors.Join(err, os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644)); err != nil {
		t.Fatal(err)
	}
	return bundle
}

// runtimeCommand is a command of a runtime. crun refuses to work where both versions of
// cgroups have controllers, so it is shown the second only.
func runtimeCommand(runtime, bundle string, args ...string) *exec.Cmd {
	words := append([]string{runtime, "--root", filepath.Join(bundle, "state")}, args...)
	if runtime == "crun" {
		words = append([]string{runtime, "--cgroup-manager=disabled"}, words[1:]...)
		const script = `! [ -e /sys/fs/cgroup/unified ] || mount -t cgroup2 none /sys/fs/cgroup; exec "$@"`
		words = append([]string{"unshare", "--mount", "sh", "-c", script, "sh"}, words...)
	}
	return exec.Command(words[0], words[1:]...)
}

func TestASquashfsHasWhatTheTarHas(t *testing.T) {
	testutil.NeedRoot(t)
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		testutil.Skip(t, "mksquashfs is not there")
	}
	file, _ := build(t, builtin(t, "busybox"), world.Options{Format: world.Squashfs})
	out, err := exec.Command("unsquashfs", "-lln", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, words := range []string{"crw-rw-rw- 0/0", "squashfs-root/dev/null", "drwxrwxrwt 0/0", "squashfs-root/etc/passwd"} {
		if !strings.Contains(string(out), words) {
			t.Errorf("no %q in\n%s", words, out)
		}
	}
}
