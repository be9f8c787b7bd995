//go:build unix

package world_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"jailtap/nsjail/world"
)

func TestTheSameInputIsTheSameBytes(t *testing.T) {
	for _, format := range []world.Format{world.Tar, world.Initramfs} {
		first, _ := build(t, builtin(t, "minimal"), world.Options{Format: format})
		second, _ := build(t, builtin(t, "minimal"), world.Options{Format: format})
		a, err1 := os.ReadFile(first)
		b, err2 := os.ReadFile(second)
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) || len(a) < 1e6 {
			t.Errorf("%s: %d and %d bytes, %v", format, len(a), len(b), err)
		}
	}
}

func TestTheSameInputIsTheSameImage(t *testing.T) {
	list := func() (names string) {
		dir, _ := build(t, builtin(t, "busybox"), world.Options{Format: world.OCI})
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			names += " " + e.Name() // blobs are called by their hash
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if a, b := list(), list(); a != b {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestAnArchiveHasHardLinksTimesAndModes(t *testing.T) {
	root := system(t, map[string]string{"bin/vi": "vi", "bin/sh": "shell", "bin/view": "-> vi"})
	old := time.Unix(1e9, 5e8)
	if err := errors.Join(os.Link(filepath.Join(root, "bin/vi"), filepath.Join(root, "bin/ex")),
		os.Chmod(filepath.Join(root, "bin/sh"), 0o751), os.Chtimes(filepath.Join(root, "bin/sh"), old, old)); err != nil {
		t.Fatal(err)
	}
	epoch := time.Unix(1.5e9, 0)
	p := world.Profile{Bins: []string{"vi", "ex", "sh", "view"}, Users: []world.User{{Name: "web", Keys: []string{"ssh-ed25519 AAAA"}}}}
	file, _ := build(t, p, world.Options{System: root, Format: world.Tar, Epoch: epoch})
	headers := readTar(t, file)
	for name, want := range map[string]tar.Header{
		"bin/ex":                        {Typeflag: tar.TypeReg, Mode: 0o755, Size: 2, ModTime: epoch}, // which comes first
		"bin/vi":                        {Typeflag: tar.TypeLink, Mode: 0o755, Linkname: "bin/ex", ModTime: epoch},
		"bin/view":                      {Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "vi", ModTime: epoch},
		"bin/sh":                        {Typeflag: tar.TypeReg, Mode: 0o751, Size: 5, ModTime: time.Unix(1e9, 0)},
		"tmp/":                          {Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: epoch},
		"root/":                         {Typeflag: tar.TypeDir, Mode: 0o700, ModTime: epoch},
		"home/web/.ssh/authorized_keys": {Typeflag: tar.TypeReg, Mode: 0o600, Size: 17, ModTime: epoch, Uid: 1000, Gid: 1000},
	} {
		h := headers[name]
		if h == nil {
			t.Errorf("no %s", name)
			continue
		}
		got := tar.Header{Typeflag: h.Typeflag, Mode: h.Mode, Size: h.Size, Linkname: h.Linkname, ModTime: h.ModTime, Uid: h.Uid, Gid: h.Gid}
		if !got.ModTime.Equal(want.ModTime) {
			t.Errorf("%s: time %v, want %v", name, got.ModTime, want.ModTime)
		}
		got.ModTime, want.ModTime = time.Time{}, time.Time{}
		if name != "home/web/.ssh/authorized_keys" {
			got.Uid, got.Gid = 0, 0 // of whoever runs the test
		}
		if got.Typeflag != want.Typeflag || got.Mode != want.Mode || got.Size != want.Size || got.Linkname != want.Linkname || got.Uid != want.Uid || got.Gid != want.Gid {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func readTar(t *testing.T, file string) map[string]*tar.Header {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	headers := map[string]*tar.Header{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		headers[h.Name] = h
	}
}
