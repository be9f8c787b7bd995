package world

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// A dirWriter writes entries into a folder.
type dirWriter struct {
	ctx      context.Context
	dst      *tree
	o        Options
	copier   copier
	isRoot   bool // owners, devices and capabilities can be given
	uid, gid int  // what new files are of
	done     atomic.Int64
	of       int
}

func newDirWriter(ctx context.Context, dst *tree, o Options) *dirWriter {
	uid := os.Geteuid()
	return &dirWriter{ctx: ctx, dst: dst, o: o, isRoot: uid == 0, uid: uid, gid: os.Getegid()}
}

// makeDir makes a folder of the manifest.
func makeDir(ctx context.Context, c *collector, o Options) error {
	w, err := begin(o, true)
	if err != nil {
		return err
	}
	err = fillDir(ctx, c.m, w.beside, o)
	var written string
	if err == nil {
		written, err = newRecord(c).write(w.final)
	}
	if err != nil {
		return errors.Join(err, w.discard())
	}
	if err := w.finish(); err != nil {
		return errors.Join(err, os.Remove(written))
	}
	return os.Rename(written, recordName(w.final))
}

func fillDir(ctx context.Context, m manifest, dir string, o Options) error {
	dst, err := openTree(dir)
	if err != nil {
		return err
	}
	defer dst.Close()
	w := newDirWriter(ctx, dst, o)
	entries := m.sorted()
	if err := w.folders(entries); err != nil {
		return err
	}
	if err := w.files(entries); err != nil {
		return err
	}
	if err := w.hardLinks(entries); err != nil {
		return err
	}
	if err := w.folderAttributes(entries); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// folders makes them open to us alone; the manifest's modes come when they are
// full.
func (w *dirWriter) folders(entries []*Entry) error {
	for _, e := range entries {
		if !e.Mode.IsDir() {
			w.of++
			continue
		}
		dir, err := w.dst.dir(path.Dir(e.Path))
		if err != nil {
			return err
		}
		if err := dir.Mkdir(path.Base(e.Path), 0o700); err != nil {
			return w.dst.error("mkdir", e.Path, err)
		}
	}
	return nil
}

// files writes all that is no folder, and no hard link to another entry:
// regular files on all processors, the largest first, and the others on one,
// since to make names in one folder is to wait for its lock.
func (w *dirWriter) files(entries []*Entry) error {
	var regular, others []*Entry
	for _, e := range entries {
		switch {
		case e.Mode.IsDir() || e.Same != "":
		case e.Mode.IsRegular() && !w.o.Link:
			regular = append(regular, e)
		default:
			others = append(others, e)
		}
	}
	slices.SortStableFunc(regular, func(a, b *Entry) int { return cmp.Compare(b.Size, a.Size) })
	group, ctx := errgroup.WithContext(w.ctx)
	var taken atomic.Int64
	for range min(runtime.GOMAXPROCS(0), 8) {
		group.Go(func() error {
			for i := taken.Add(1); i <= int64(len(regular)); i = taken.Add(1) {
				if err := w.one(ctx, regular[i-1]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		for _, e := range others {
			if err := w.one(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

func (w *dirWriter) one(ctx context.Context, e *Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := w.file(e, path.Base(e.Path)); err != nil {
		return err
	}
	w.progress()
	return nil
}

func (w *dirWriter) progress() {
	if done := w.done.Add(1); w.o.Progress != nil {
		w.o.Progress(int(done), w.of)
	}
}

// file writes an entry under a name in its folder.
func (w *dirWriter) file(e *Entry, name string) error {
	dir, err := w.dst.dir(path.Dir(e.Path))
	if err != nil {
		return err
	}
	switch {
	case e.Mode&fs.ModeSymlink != 0 && w.o.Link && e.from != nil && w.link(name, e) == nil:
		return nil // which is quicker than another link, where the file system has links to links
	case e.Mode&fs.ModeSymlink != 0:
		err = w.symlink(dir, name, e)
	case e.Mode&fs.ModeDevice != 0:
		err = w.device(dir, name, e)
	case w.o.Link && e.isShared():
		return w.link(name, e)
	default:
		return w.regular(dir, name, e)
	}
	if err != nil {
		return w.dst.error("create", e.Path, err)
	}
	return nil
}

func (w *dirWriter) symlink(dir *os.Root, name string, e *Entry) error {
	if err := dir.Symlink(e.Link, name); err != nil {
		return err
	}
	if !w.mustChown(e) {
		return nil
	}
	return dir.Lchown(name, e.UID, e.GID)
}

func (w *dirWriter) device(dir *os.Root, name string, e *Entry) error {
	if !w.isRoot {
		return nil
	}
	if err := makeDevice(dir, name, e); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil // root of a user namespace may not (user_namespaces(7))
		}
		return err
	}
	return dir.Chmod(name, e.Mode)
}

// isShared reports whether the entry is in all the same as the file of the
// system, so that a hard link will do.
func (e *Entry) isShared() bool {
	if e.from == nil {
		return false
	}
	const bits = fs.ModeSetuid | fs.ModeSetgid
	info, err := e.from.lstat(e.source)
	return err == nil && info.Mode()&bits == e.Mode&bits
}

func (w *dirWriter) link(name string, e *Entry) error {
	from, err := e.from.handle(path.Dir(e.source))
	if err != nil {
		return err
	}
	to, err := w.dst.handle(path.Dir(e.Path))
	if err != nil {
		return err
	}
	if err := from.link(path.Base(e.source), to, name); err != nil {
		return fmt.Errorf("hard link to %s: %w: without --link it is copied", path.Join(e.from.name, e.source), err)
	}
	return nil
}

// regular writes a file with all its attributes. The owner comes first, since
// changing it takes setuid bits and capabilities away (chown(2)).
func (w *dirWriter) regular(dir *os.Root, name string, e *Entry) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return w.dst.error("create", e.Path, err)
	}
	defer f.Close()
	if err := w.content(f, e); err != nil {
		return w.dst.error("write", e.Path, err)
	}
	if w.mustChown(e) {
		err = f.Chown(e.UID, e.GID)
	}
	err = errors.Join(err, f.Chmod(e.Mode))
	for attr, value := range e.Xattrs {
		if w.isRoot || attr != "security.capability" {
			err = errors.Join(err, setXattr(f, attr, value))
		}
	}
	if err = errors.Join(err, f.Close(), dir.Chtimes(name, e.ModTime, e.ModTime)); err != nil {
		return w.dst.error("set attributes of", e.Path, err)
	}
	return nil
}

// content writes the bytes of a file.
func (w *dirWriter) content(dst *os.File, e *Entry) error {
	if e.from == nil {
		_, err := dst.WriteString(e.content)
		return err
	}
	src, err := e.from.open(e.source)
	if err != nil {
		return err
	}
	defer src.Close()
	n, err := w.copier.copy(w.ctx, dst, src)
	if err == nil && n != e.Size {
		err = e.changed(n)
	}
	return err
}

// copyPieces copies all of src in pieces, between which it can be interrupted.
func copyPieces(ctx context.Context, dst, src *os.File) (total int64, err error) {
	const piece = 16 << 20
	for {
		n, err := io.CopyN(dst, src, piece)
		total += n
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return total, err
		}
	}
}

// changed is that a file of the system did not keep still.
func (e *Entry) changed(n int64) error {
	return fmt.Errorf("/%s had %d bytes and now has %d: it is being changed; try again", e.source, e.Size, n)
}

// mustChown reports whether the owner is not who writes; others than root
// cannot give files away.
func (w *dirWriter) mustChown(e *Entry) bool {
	return w.isRoot && (e.UID != w.uid || e.GID != w.gid)
}

func (w *dirWriter) hardLinks(entries []*Entry) error {
	root, err := w.dst.dir(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Same == "" {
			continue
		}
		if err := root.Link(e.Same, e.Path); err != nil {
			return w.dst.error("link", e.Path, err)
		}
		w.progress()
	}
	return nil
}

// folderAttributes gives folders what they shall have, the inner ones first.
func (w *dirWriter) folderAttributes(entries []*Entry) error {
	for _, e := range slices.Backward(entries) {
		if e.Mode.IsDir() {
			if err := w.folder(e); err != nil {
				return w.dst.error("set attributes of", e.Path, err)
			}
		}
	}
	return nil
}

func (w *dirWriter) folder(e *Entry) error {
	dir, err := w.dst.dir(path.Dir(e.Path))
	if err != nil {
		return err
	}
	name := path.Base(e.Path)
	if w.mustChown(e) {
		err = dir.Chown(name, e.UID, e.GID)
	}
	return errors.Join(err, dir.Chmod(name, e.Mode), dir.Chtimes(name, e.ModTime, e.ModTime))
}
