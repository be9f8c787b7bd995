package world

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

// A Change is how a file differs.
type Change struct {
	What What   `json:"what"`
	Path string `json:"path"` // absolute, in the world
}

// What has become of a file.
type What string

// What Diff and Compare find.
const (
	Added   What = "added"   // the second has it alone; an update would bring it
	Changed What = "changed" // both have it, and not the same; an update would bring it
	Removed What = "removed" // the first has it alone
	Own     What = "own"     // the jail made or changed it; an update keeps it
)

// Diff tells what an update of a folder, o.Target, would do.
func Diff(ctx context.Context, p Profile, o Options) ([]Change, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	t, err := openTree(o.System)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	c, err := collect(ctx, t, p, o)
	if err != nil {
		return nil, err
	}
	defer c.close()
	dst, err := openTree(o.Target)
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	r, err := recordOrNone(o.Target)
	if err != nil {
		return nil, err
	}
	changes := []Change{}
	for _, e := range c.m.sorted() {
		if what := dst.compare(c.m, e, r); what != "" {
			changes = append(changes, Change{what, "/" + e.Path})
		}
	}
	err = dst.walk(ctx, func(name string, info fs.FileInfo) error {
		if _, wasPut := r.Files[name]; c.m[name] == nil && !wasPut {
			changes = append(changes, Change{Own, "/" + name})
		}
		return nil
	})
	return sortChanges(changes), err
}

func sortChanges(changes []Change) []Change {
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes
}

// compare tells what an update would do with an entry; "" is nothing.
func (t *tree) compare(m manifest, e *Entry, r record) What {
	switch err := t.isFolders(path.Dir(e.Path)); {
	case errors.Is(err, fs.ErrNotExist):
		return Added
	case err != nil:
		return Own
	}
	info, err := t.lstat(e.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Added
	case err != nil:
		return Own
	case e.Mode.IsDir() && info.IsDir(), e.from == nil && e.Link == "":
		return "" // folders and the skeleton are the jail's from then on
	case t.is(info, e.Path, e.recorded(m), e.Mode):
		return ""
	}
	if was, ok := r.Files[e.Path]; ok && (t.is(info, e.Path, was, 0) || t.is(info, e.Path, was, fs.ModeSymlink)) {
		return Changed
	}
	return Own
}

// isFolders is nil if a path is one of folders alone: a jail may have put a link in the way.
func (t *tree) isFolders(dir string) error {
	if dir == "." {
		return nil
	}
	if err := t.isFolders(path.Dir(dir)); err != nil {
		return err
	}
	info, err := t.lstat(dir)
	if err == nil && !info.IsDir() {
		err = t.error("enter", dir, syscall.ENOTDIR)
	}
	return err
}

// is reports whether a file is the one that a record is about.
func (t *tree) is(info fs.FileInfo, name string, r recorded, mode fs.FileMode) bool {
	if info.Mode()&fs.ModeType != mode&fs.ModeType {
		return false
	}
	if mode&fs.ModeSymlink != 0 {
		target, err := t.readlink(name)
		return err == nil && target == r.Link
	}
	return info.Size() == r.Size && info.ModTime().Equal(r.Time)
}

// Compare tells how the second of two folders differs from the first.
func Compare(ctx context.Context, first, second string) ([]Change, error) {
	a, err := openTree(first)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := openTree(second)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	in, err := a.manifest(ctx)
	if err != nil {
		return nil, err
	}
	out, err := b.manifest(ctx)
	if err != nil {
		return nil, err
	}
	changes := []Change{}
	for name, e := range in {
		if other := out[name]; other == nil {
			changes = append(changes, Change{Removed, "/" + name})
		} else if same, err := e.sameAs(other); err != nil {
			return nil, err
		} else if !same {
			changes = append(changes, Change{Changed, "/" + name})
		}
	}
	for name := range out {
		if in[name] == nil {
			changes = append(changes, Change{Added, "/" + name})
		}
	}
	return sortChanges(changes), nil
}

// sameAs compares all but times, of which the bytes tell.
func (e *Entry) sameAs(other *Entry) (bool, error) {
	if e.Mode != other.Mode || e.UID != other.UID || e.GID != other.GID || e.Size != other.Size ||
		e.Link != other.Link || e.Major != other.Major || e.Minor != other.Minor {
		return false, nil
	}
	if !e.Mode.IsRegular() || e.ModTime.Equal(other.ModTime) {
		return true, nil
	}
	return e.sameBytes(other)
}

func (e *Entry) sameBytes(other *Entry) (bool, error) {
	a, err := e.open()
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := other.open()
	if err != nil {
		return false, err
	}
	defer b.Close()
	const piece = 64 << 10
	x, y := make([]byte, piece), make([]byte, piece)
	for {
		n, err1 := io.ReadFull(a, x)
		m, err2 := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if err1 != nil || err2 != nil {
			return true, nil
		}
	}
}

// open opens the bytes of a regular file.
func (e *Entry) open() (io.ReadCloser, error) {
	if e.from == nil {
		return io.NopCloser(strings.NewReader(e.content)), nil
	}
	return e.from.open(e.source)
}
