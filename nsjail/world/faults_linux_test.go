package world_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

func TestWhatIsMissingIsNamed(t *testing.T) {
	root := system(t, map[string]string{
		"bin/sh": "shell", "bin/cat": "cat", "usr/bin/script": "#!/usr/bin/perl\n", "usr/bin/snake": "#!/usr/bin/env -S python3 -u\n", "usr/bin/env": "env",
		"usr/bin/loop": "-> loop",
	})
	for bin, words := range map[string]string{
		"act":            `unknown binary "act": near are cat`, // swapped letters are one step
		"cats":           `unknown binary "cats": near are cat`,
		"/usr/bin/scrip": `unknown binary "/usr/bin/scrip": near are script`,
		"quite-unlike":   `unknown binary "quite-unlike": it is not in /usr/local/sbin:`,
		"script":         "/usr/bin/perl not found: /usr/bin/script wants it",
		"snake":          "interpreter python3 not found: /usr/bin/snake wants it",
		"/usr/bin":       "/usr/bin is not a file",
		"/usr/bin/loop":  "too many levels of symbolic links",
		"bin/sh":         `bad binary "bin/sh": give a name or an absolute path`,
	} {
		mustNotBuild(t, world.Profile{Bins: []string{bin}}, world.Options{System: root}, words)
	}
	mustNotBuild(t, world.Profile{Bins: []string{"script", "act"}}, world.Options{System: root}, `wants it; unknown binary "act"`)
	mustNotBuild(t, world.Profile{Files: []string{"/etc/*.conf"}}, world.Options{System: root}, "no such file: /etc/*.conf")
	mustNotBuild(t, world.Profile{Services: []string{"httpd"}}, world.Options{System: root}, `unknown service "httpd": known are sshd`)
}

func TestTheOptionalIsToldAndLeftOut(t *testing.T) {
	root := system(t, map[string]string{"bin/sh": "shell"})
	_, r := build(t, world.Profile{Bins: []string{"sh", "less?"}, Files: []string{"/etc/motd?"}}, world.Options{System: root})
	if strings.Join(r.Absent, " ") != "/etc/motd less" {
		t.Errorf("absent: %q", r.Absent)
	}
}

func TestATargetThatIsThereStays(t *testing.T) {
	p := world.Profile{Bins: []string{"sh"}}
	root := system(t, map[string]string{"bin/sh": "shell"})
	target := filepath.Join(t.TempDir(), "world")
	if err := os.MkdirAll(filepath.Join(target, "precious"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := world.Options{System: root, Target: target}
	_, err := world.Build(t.Context(), p, o)
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "--update brings it up to date, --force replaces it") {
		t.Error(err)
	}
	mustHoldOnly(t, target, "precious")
	mustHoldOnly(t, filepath.Dir(target), "world")

	o.Force = true
	build(t, p, o)
	if _, err := os.Lstat(filepath.Join(target, "precious")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("--force did not replace: %v", err)
	}
	mustHoldOnly(t, filepath.Dir(target), ".world.world.json", "world")

	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	o.Target = link
	if _, err := world.Build(t.Context(), p, o); err == nil || !strings.Contains(err.Error(), "is a link: name where it leads") {
		t.Error(err)
	}
}

func TestAnInterruptedBuildLeavesNothing(t *testing.T) {
	root := system(t, map[string]string{"bin/sh": strings.Repeat("shell", 1<<20), "bin/cat": "cat"})
	for _, format := range world.Formats {
		if format == world.Squashfs {
			continue // mksquashfs is a process of its own; it has a test of its own
		}
		ctx, cancel := context.WithCancel(t.Context())
		o := world.Options{System: root, Format: format, Target: filepath.Join(t.TempDir(), "world")}
		o.Progress = func(int, int) { cancel() }
		if _, err := world.Build(ctx, world.Profile{Bins: []string{"sh", "cat"}}, o); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", format, err)
		}
		mustHoldOnly(t, filepath.Dir(o.Target))
	}
}

// A countdown is a context that ends when it has been asked a number of times.
type countdown struct {
	context.Context
	left atomic.Int64
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// The one file of the second system is asked about more often, and so in its middle.
func TestTheCopyOfALargeFileIsInterrupted(t *testing.T) {
	p := world.Profile{Files: []string{"/data"}}
	for _, format := range []world.Format{world.Dir, world.Tar, world.Initramfs, world.OCI} {
		root := system(t, map[string]string{"data": "data", "bin/sh": "shell"})
		enough := &countdown{Context: t.Context()}
		const many = 1 << 40
		enough.left.Store(many)
		if _, err := world.Build(enough, p, world.Options{System: root, Format: format, Target: filepath.Join(t.TempDir(), "world")}); err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if err := os.Truncate(filepath.Join(root, "data"), 64<<20); err != nil {
			t.Fatal(err)
		}
		scarce := &countdown{Context: t.Context()}
		scarce.left.Store(many - enough.left.Load() + 1)
		o := world.Options{System: root, Format: format, Target: filepath.Join(t.TempDir(), "world")}
		if _, err := world.Build(scarce, p, o); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", format, err)
		}
		mustHoldOnly(t, filepath.Dir(o.Target))
	}
}

// The layer is compressed when all files have been told of.
func TestTheCompressionOfAnImageIsInterrupted(t *testing.T) {
	root := system(t, map[string]string{"bin/sh": strings.Repeat("shell", 4<<20)})
	ctx, cancel := context.WithCancel(t.Context())
	o := world.Options{System: root, Format: world.OCI, Target: filepath.Join(t.TempDir(), "world")}
	o.Progress = func(done, of int) {
		if done == of {
			cancel()
		}
	}
	if _, err := world.Build(ctx, world.Profile{Bins: []string{"sh"}}, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mustHoldOnly(t, filepath.Dir(o.Target))
}

func TestOneOfTwoBuildsIntoOnePlaceIsRefused(t *testing.T) {
	root := system(t, map[string]string{"bin/sh": "shell", "bin/cat": "cat"})
	p := world.Profile{Bins: []string{"sh", "cat"}}
	for _, format := range []world.Format{world.Dir, world.Tar} {
		o := world.Options{System: root, Format: format, Target: filepath.Join(t.TempDir(), "world")}
		second := errors.New("was not tried")
		inside := o
		o.Progress = func(done, _ int) {
			if done == 1 {
				_, second = world.Build(t.Context(), p, inside)
			}
		}
		build(t, p, o)
		if second == nil || !strings.Contains(second.Error(), "another build into "+o.Target+" is at work") {
			t.Errorf("%s: %v", format, second)
		}
	}
}

// A build that was killed holds no lock.
func TestWhatAKilledBuildLeftIsReplaced(t *testing.T) {
	root := system(t, map[string]string{"bin/sh": "shell"})
	target := filepath.Join(t.TempDir(), "world")
	if err := errors.Join(os.MkdirAll(filepath.Join(filepath.Dir(target), ".world.partial/half"), 0o700),
		os.WriteFile(filepath.Join(filepath.Dir(target), ".world.world.json.partial"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	build(t, world.Profile{Bins: []string{"sh"}}, world.Options{System: root, Target: target})
	mustHoldOnly(t, filepath.Dir(target), ".world.world.json", "world")
	if _, err := os.Lstat(filepath.Join(target, "half")); err == nil {
		t.Error("what was left is in the world")
	}
}

// What links of the system lead to is looked for in the system, as after chroot(2).
func TestLinksOfAHostileSystemLeadNowhereOutOfIt(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := system(t, map[string]string{
		"bin/sh": "shell", "bin/up": "-> ../../../../../../../../../.." + secret, "bin/absolute": "-> " + secret, "etc": "-> /..",
	})
	for _, bin := range []string{"/bin/up", "/bin/absolute", "/etc" + secret} {
		mustNotBuild(t, world.Profile{Bins: []string{bin}}, world.Options{System: root}, "unknown binary")
	}
}

// A jail that has put links into its root must not have an update write through them.
func TestAnUpdateDoesNotFollowLinksOfTheJail(t *testing.T) {
	root := system(t, map[string]string{"usr/bin/sh": "shell", "usr/bin/cat": "cat"})
	p := world.Profile{Bins: []string{"sh", "cat"}}
	dir, _ := build(t, p, world.Options{System: root})
	outside := t.TempDir()
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "usr/bin")), os.Symlink(outside, filepath.Join(dir, "usr/bin")),
		os.RemoveAll(filepath.Join(dir, "etc")), os.Symlink("../../../../../../../.."+outside, filepath.Join(dir, "etc"))); err != nil {
		t.Fatal(err)
	}
	_, r := build(t, p, world.Options{System: root, Target: dir, Update: true})
	mustHoldOnly(t, outside)
	if !strings.Contains(strings.Join(r.Kept, " "), "/usr/bin/sh") {
		t.Errorf("kept: %q", r.Kept)
	}
}

func TestSetuidBitsAreDroppedUnlessAskedFor(t *testing.T) {
	root := system(t, map[string]string{"bin/su": "su", "bin/ping": "ping"})
	for _, name := range []string{"su", "ping"} {
		if err := os.Chmod(filepath.Join(root, "bin", name), fs.ModeSetuid|0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, r := build(t, world.Profile{Bins: []string{"su", "ping"}, Setuid: []string{"ping"}}, world.Options{System: root})
	for name, want := range map[string]fs.FileMode{"su": 0o755, "ping": fs.ModeSetuid | 0o755} {
		if info, err := os.Stat(filepath.Join(dir, "bin", name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if strings.Join(r.Dropped, " ") != "/bin/su" {
		t.Errorf("dropped: %q", r.Dropped)
	}
}

func TestAFileThatCannotBeReadEndsTheBuild(t *testing.T) {
	root := system(t, map[string]string{"bin/sh": "shell", "bin/pipe/x": "x"})
	if err := syscall.Mkfifo(filepath.Join(root, "bin/pipe/fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustNotBuild(t, world.Profile{Files: []string{"/bin/pipe"}}, world.Options{System: root}, "pipes and sockets do not go into a world")
	if os.Geteuid() == 0 {
		return // root reads all
	}
	if err := os.Chmod(filepath.Join(root, "bin/sh"), 0o111); err != nil {
		t.Fatal(err)
	}
	mustNotBuild(t, world.Profile{Bins: []string{"sh"}}, world.Options{System: root}, "permission denied")
}

func TestAFullDiskLeavesNothing(t *testing.T) {
	testutil.NeedRoot(t)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	root := system(t, map[string]string{"bin/sh": strings.Repeat("shell", 1<<16)})
	for _, format := range []world.Format{world.Dir, world.Tar, world.OCI, world.Initramfs} {
		mustNotBuild(t, world.Profile{Bins: []string{"sh"}}, world.Options{System: root, Format: format, Target: filepath.Join(disk, "world")}, "no space left on device")
	}
}

func TestEnsureBuildsOnce(t *testing.T) {
	root := system(t, map[string]string{"bin/sh": "shell"})
	o := world.Options{System: root, Target: filepath.Join(t.TempDir(), "world")}
	p := world.Profile{Bins: []string{"sh"}}
	for _, want := range []bool{true, false} {
		if built, err := world.Ensure(t.Context(), p, o); built != want || err != nil {
			t.Errorf("built %v, %v, want %v", built, err, want)
		}
	}
}
