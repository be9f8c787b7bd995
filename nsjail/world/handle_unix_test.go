//go:build unix

package world

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// openFolder is a handle of a folder.
func openFolder(t *testing.T, dir string) handle {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h, err := openHandle(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

func TestAHandleDescribesFilesAsPackageOSDoes(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	socket, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := errors.Join(os.WriteFile(in("file"), []byte("text"), 0o600), os.Chmod(in("file"), 0o751|fs.ModeSetuid|fs.ModeSetgid),
		os.Mkdir(in("dir"), 0o700), os.Chmod(in("dir"), 0o777|fs.ModeSticky), os.Symlink("nowhere", in("link")),
		syscall.Mkfifo(in("fifo"), 0o600), os.Link(in("file"), in("other"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{in("file"), in("dir"), in("link"), in("fifo"), in("socket"), "/dev/null", "/"} {
		want, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(name)
		if name == "/" {
			base = "."
		}
		got, err := openFolder(t, filepath.Dir(name)).lstat(base)
		if err != nil {
			t.Fatal(err)
		}
		if got.Mode() != want.Mode() || got.Size() != want.Size() || !got.ModTime().Equal(want.ModTime()) ||
			got.IsDir() != want.IsDir() || ownerOf(got) != ownerOf(want) {
			t.Errorf("%s: %v %d %v %+v, want %v %d %v %+v", name, got.Mode(), got.Size(), got.ModTime(), ownerOf(got),
				want.Mode(), want.Size(), want.ModTime(), ownerOf(want))
		}
	}
}

func TestAHandleLeadsNowhereOutOfItsFolder(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(outside, "inside")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644),
		os.Symlink("..", filepath.Join(dir, "up")), os.Symlink("../secret", filepath.Join(dir, "link")),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	h := openFolder(t, dir)
	for _, name := range []string{"", "..", "../secret", "up/secret", "/etc/passwd", "up", "link"} {
		if sub, err := h.folder(name); err == nil {
			sub.close()
			t.Errorf("folder %q was opened", name)
		}
		if r, err := h.reader(name); err == nil {
			r.Close()
			t.Errorf("%q was opened", name)
		}
	}
	for _, name := range []string{"", "..", "../secret", "up/secret"} {
		if _, err := h.lstat(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("lstat %q: %v", name, err)
		}
		if err := h.link("file", h, name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("link to %q: %v", name, err)
		}
		if err := h.link(name, h, "new"); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("link of %q: %v", name, err)
		}
	}
}

// Nobody writes into the FIFO: to wait for that would be to wait for ever.
func TestAHandleReadsRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644), os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o644)); err != nil {
		t.Fatal(err)
	}
	h := openFolder(t, dir)
	for _, name := range []string{"fifo", "."} {
		if r, err := h.reader(name); err == nil {
			r.Close()
			t.Errorf("%s was opened", name)
		}
	}
	r, err := h.reader("file")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := make([]byte, 8)
	if n, err := r.ReadAt(b, 1); string(b[:n]) != "ext" || !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", b[:n], err)
	}
}
