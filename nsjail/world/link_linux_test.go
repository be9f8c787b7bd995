package world_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

// Without root fs.protected_hardlinks refuses links to files of others; these are the test's.
func TestALinkedWorldHasTheFilesOfTheSystem(t *testing.T) {
	root := system(t, map[string]string{"bin/vi": "vi", "bin/view": "-> vi", "bin/su": "su"})
	if err := os.Chmod(filepath.Join(root, "bin/su"), fs.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vi", "su"} {
		if err := unix.Setxattr(filepath.Join(root, "bin", name), "user.note", []byte(name), 0); err != nil {
			testutil.Skip(t, "no user.* attributes on %s", root)
		}
	}
	o := world.Options{System: root, Link: true}
	dir, r := build(t, world.Profile{Bins: []string{"view", "su"}}, o)
	for name, want := range map[string]bool{"bin/vi": true, "bin/view": true, "bin/su": false} {
		of, err1 := os.Lstat(filepath.Join(root, name))
		in, err2 := os.Lstat(filepath.Join(dir, name))
		if err := errors.Join(err1, err2); err != nil || os.SameFile(of, in) != want {
			t.Errorf("%s: the same is %v, want %v (%v)", name, os.SameFile(of, in), want, err)
		}
	}
	// What loses a bit is a file of its own, with all else that it had.
	if info, err := os.Stat(filepath.Join(dir, "bin/su")); err != nil || info.Mode() != 0o755 {
		t.Errorf("su: %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"vi", "su"} {
		note := make([]byte, 10)
		if n, err := unix.Getxattr(filepath.Join(dir, "bin", name), "user.note", note); err != nil || string(note[:n]) != name {
			t.Errorf("%s: attribute %q, %v", name, note, err)
		}
	}
	if strings.Join(r.Dropped, " ") != "/bin/su" {
		t.Errorf("dropped: %q", r.Dropped)
	}
}

func TestLinksToAnotherFileSystemAreRefused(t *testing.T) {
	elsewhere, err := os.MkdirTemp("/dev/shm", "jailtap-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(elsewhere) })
	root := system(t, map[string]string{"bin/sh": "shell"})
	o := world.Options{System: root, Link: true, Target: filepath.Join(elsewhere, "world")}
	mustNotBuild(t, world.Profile{Bins: []string{"sh"}}, o, "hard link to "+root+"/bin/sh: invalid cross-device link: without --link it is copied")
}
