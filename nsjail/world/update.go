package world

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
)

// update brings what has changed into a folder, and keeps what the jail has
// made or changed there: what is neither as it was recorded nor as it would be.
// Without a record that is all that differs.
func update(ctx context.Context, c *collector, o Options) (changed, kept []string, err error) {
	held := newTarget(o.Target, true)
	if err := held.acquire(); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, held.discard()) }()
	old, err := recordOrNone(o.Target)
	if err != nil {
		return nil, nil, err
	}
	dst, err := openTree(o.Target)
	if err != nil {
		return nil, nil, err
	}
	defer dst.Close()
	w := newDirWriter(ctx, dst, o)
	next := newRecord(c)
	entries := c.m.sorted()
	w.of = len(entries)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return changed, kept, err
		}
		switch dst.compare(c.m, e, old) {
		case Own:
			kept = append(kept, "/"+e.Path)
			next.keep(e.Path, old)
		case Added, Changed:
			if err := w.replace(c.m, e); err != nil {
				return changed, kept, err
			}
			changed = append(changed, "/"+e.Path)
		}
		w.progress()
	}
	written, err := next.write(o.Target)
	if err != nil {
		return changed, kept, err
	}
	return changed, kept, os.Rename(written, recordName(o.Target))
}

// keep records of a file what was recorded before.
func (r record) keep(name string, old record) {
	delete(r.Files, name)
	if was, ok := old.Files[name]; ok {
		r.Files[name] = was
	}
}

func recordOrNone(dir string) (record, error) {
	r, err := readRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	return r, err
}

// replace puts an entry in the place of what is there by a rename: processes
// that run it, or have it mapped, go on with the old one.
func (w *dirWriter) replace(m manifest, e *Entry) error {
	dir, err := w.dst.dir(path.Dir(e.Path))
	if err != nil {
		return err
	}
	name := path.Base(e.Path)
	w.dst.forget(e.Path)
	if e.Mode.IsDir() {
		if err := dir.Mkdir(name, 0o700); err != nil {
			return w.dst.error("mkdir", e.Path, err)
		}
		return w.folder(e)
	}
	if e.Same != "" { // a copy: the other one may be the jail's own by now
		whole := *e
		whole.Same, whole.Size = "", m[e.Same].Size
		e = &whole
	}
	beside := "." + name + "." + rand.Text()
	err = w.file(e, beside)
	if err == nil && !e.isDeviceLeftOut(dir, beside) {
		err = dir.Rename(beside, name)
	}
	if err != nil {
		dir.Remove(beside) // may not be there
		return w.dst.error("update", e.Path, err)
	}
	return nil
}

// isDeviceLeftOut reports whether it is a device, and none was made.
func (e *Entry) isDeviceLeftOut(dir *os.Root, name string) bool {
	_, err := dir.Lstat(name)
	return e.Mode&fs.ModeDevice != 0 && errors.Is(err, fs.ErrNotExist)
}

// sortedUnique is for lists in results.
func sortedUnique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
