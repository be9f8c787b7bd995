package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// unsupported says that this system cannot, in the words that are asked for
// with errors.Is on all of them.
func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// A target is being made beside its place, under a name of its own, which is
// also the lock: who holds it builds, and one that nobody holds is left from a
// process that was killed.
type target struct {
	final, beside string
	file          *os.File
	isDir, force  bool
}

// begin makes an empty file or folder beside the place, or says why nothing
// may be made there.
func begin(o Options, isDir bool) (*target, error) {
	w := newTarget(o.Target, isDir)
	w.force = o.Force
	if err := w.mayBeMade(); err != nil {
		return nil, err
	}
	return w, w.acquire()
}

func newTarget(name string, isDir bool) *target {
	name = filepath.Clean(name)
	return &target{final: name, beside: besides(name, "partial"), isDir: isDir}
}

// besides is a hidden name next to another one.
func besides(name, suffix string) string {
	return filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+"."+suffix)
}

func (w *target) mayBeMade() error {
	info, err := os.Lstat(w.final)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a link: name where it leads", w.final)
	case w.isDir && info.IsDir() && isEmpty(w.final):
		return w.hasNoMounts()
	case !w.force:
		return w.isThere(info)
	case info.IsDir() != w.isDir || !info.IsDir() && !info.Mode().IsRegular():
		return fmt.Errorf("%s is something else than what would be made, and is not replaced", w.final)
	}
	return w.hasNoMounts()
}

func (w *target) isThere(info fs.FileInfo) error {
	if w.isDir && info.IsDir() {
		return fmt.Errorf("%s: %w, and is not empty; --update brings it up to date, --force replaces it", w.final, fs.ErrExist)
	}
	return fmt.Errorf("%s: %w; --force replaces it", w.final, fs.ErrExist)
}

// hasNoMounts keeps from replacing, which removes, what is mounted from elsewhere.
func (w *target) hasNoMounts() error {
	mounts, err := mountsIn(w.final)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is mounted: name a place where nothing is", mounts[0])
	}
	return nil
}

func isEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

// acquire makes what is written to, locked.
func (w *target) acquire() error {
	const tries = 5 // others may come and go meanwhile
	for range tries {
		err := w.create()
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		isStale := err != nil
		if w.file, err = openOwn(w.beside, w.access()); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := lock(w.file); err != nil {
			w.file.Close()
			if errors.Is(err, errLocked) {
				return fmt.Errorf("another build into %s is at work", w.final)
			}
			return err
		}
		switch {
		case !w.isAtItsName():
			w.file.Close()
		case isStale:
			if err := os.RemoveAll(w.beside); err != nil {
				return errors.Join(err, w.file.Close())
			}
			w.file.Close()
		default:
			return nil
		}
	}
	return fmt.Errorf("another build into %s is at work", w.final)
}

func (w *target) create() error {
	if w.isDir {
		return os.Mkdir(w.beside, 0o700)
	}
	f, err := os.OpenFile(w.beside, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		err = f.Close()
	}
	return err
}

func (w *target) access() int {
	if w.isDir {
		return os.O_RDONLY
	}
	return os.O_RDWR
}

// isAtItsName reports whether what was locked is still what has the name.
func (w *target) isAtItsName() bool {
	now, err1 := os.Lstat(w.beside)
	locked, err2 := w.file.Stat()
	return err1 == nil && err2 == nil && os.SameFile(now, locked)
}

// finish gives it its name.
func (w *target) finish() error {
	err := w.rename()
	if errors.Is(err, syscall.EBUSY) {
		err = fmt.Errorf("%s is a mount point: name a folder in it", w.final)
	}
	if err != nil {
		return errors.Join(err, w.discard())
	}
	return w.file.Close()
}

func (w *target) rename() error {
	switch {
	case w.isDir && w.force && exists(w.final):
		if err := exchange(w.beside, w.final); err != nil {
			return err
		}
		return os.RemoveAll(w.beside)
	case w.isDir, w.force:
		return os.Rename(w.beside, w.final) // which replaces no folder that is not empty
	}
	if err := os.Link(w.beside, w.final); err == nil || errors.Is(err, fs.ErrExist) {
		return errors.Join(err, os.Remove(w.beside))
	}
	return os.Rename(w.beside, w.final) // a file system without hard links
}

// discard takes it away again.
func (w *target) discard() error {
	return errors.Join(os.RemoveAll(w.beside), w.file.Close())
}

// makeFile makes a target that is one file.
func makeFile(o Options, write func(*target) error) error {
	w, err := begin(o, false)
	if err != nil {
		return err
	}
	if err := write(w); err != nil {
		return errors.Join(err, w.discard())
	}
	return w.finish()
}
