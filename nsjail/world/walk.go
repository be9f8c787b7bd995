package world

import (
	"context"
	"io/fs"
	"path"
)

// walk tells of all that is in a tree, folders before what is in them, and does
// not go into what is mounted there: /proc of a jail that runs.
func (t *tree) walk(ctx context.Context, visit func(name string, info fs.FileInfo) error) error {
	top, err := t.lstat(".")
	if err != nil {
		return err
	}
	return t.walkBelow(ctx, ".", ownerOf(top).id.dev, visit)
}

func (t *tree) walkBelow(ctx context.Context, dir string, dev uint64, visit func(string, fs.FileInfo) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := t.readDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		info, err := t.lstat(name)
		if err != nil {
			return err
		}
		if err := visit(name, info); err != nil {
			return err
		}
		if info.IsDir() && ownerOf(info).id.dev == dev {
			if err := t.walkBelow(ctx, name, dev, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// List is what is in a folder, sorted by path.
func List(ctx context.Context, dir string) ([]Entry, error) {
	t, err := openTree(dir)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	m, err := t.manifest(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Entry, 0, len(m))
	for _, e := range m.sorted() {
		list = append(list, *e)
	}
	return list, nil
}

// manifest is all that is in a tree.
func (t *tree) manifest(ctx context.Context) (manifest, error) {
	m := manifest{}
	return m, t.walk(ctx, func(name string, info fs.FileInfo) (err error) {
		own := ownerOf(info)
		e := &Entry{Path: name, Mode: info.Mode(), UID: own.uid, GID: own.gid, ModTime: info.ModTime(), from: t, source: name}
		switch {
		case info.Mode().IsRegular():
			e.Size = info.Size()
		case info.Mode()&fs.ModeSymlink != 0:
			e.Link, err = t.readlink(name)
		case info.Mode()&fs.ModeDevice != 0:
			e.Major, e.Minor = own.major, own.minor
		}
		m[name] = e
		return err
	})
}
