package world

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// A tree is a file system below one folder, in which links lead where they
// lead after chroot(2) into it: never out. Whoever is at home in it may change
// it meanwhile; then answers may be wrong, but are about the tree still, since
// every access is one of os.Root.
//
// Paths in it are slash separated and relative; "." is the tree itself.
type tree struct {
	name    string // of the folder, for messages
	mu      sync.Mutex
	dirs    map[string]*os.Root
	handles map[string]*os.File // of folders, for calls that os.Root does not have
	infos   map[string]stat     // of paths without links on the way
	links   map[string]string   // where they point
}

type stat struct {
	info fs.FileInfo
	err  error
}

func openTree(dir string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &tree{name: filepath.ToSlash(dir), dirs: map[string]*os.Root{".": root}, handles: map[string]*os.File{},
		infos: map[string]stat{}, links: map[string]string{}}, nil
}

func (t *tree) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, dir := range t.dirs {
		dir.Close()
	}
	for _, handle := range t.handles {
		handle.Close()
	}
}

// dir opens a folder; no part of the path is a link.
func (t *tree) dir(name string) (*os.Root, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dirLocked(name)
}

func (t *tree) dirLocked(name string) (*os.Root, error) {
	if dir := t.dirs[name]; dir != nil {
		return dir, nil
	}
	up, err := t.dirLocked(path.Dir(name))
	if err != nil {
		return nil, err
	}
	dir, err := up.OpenRoot(path.Base(name))
	if err != nil {
		return nil, t.error("open", name, err)
	}
	t.dirs[name] = dir
	return dir, nil
}

// handle is a descriptor of a folder; no part of the path is a link.
func (t *tree) handle(name string) (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if handle := t.handles[name]; handle != nil {
		return handle, nil
	}
	dir, err := t.dirLocked(name)
	if err != nil {
		return nil, err
	}
	handle, err := dir.Open(".")
	if err != nil {
		return nil, t.error("open", name, err)
	}
	t.handles[name] = handle
	return handle, nil
}

// lstat asks once for each path; folders on the way are no links.
func (t *tree) lstat(name string) (fs.FileInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.infos[name]; ok {
		return s.info, s.err
	}
	var s stat
	if dir, err := t.dirLocked(path.Dir(name)); err != nil {
		s.err = err
	} else if s.info, err = dir.Lstat(path.Base(name)); err != nil {
		s.err = t.error("stat", name, err)
	}
	t.infos[name] = s
	return s.info, s.err
}

// error is an error about a path, with all of it in the message.
func (t *tree) error(op, name string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &fs.PathError{Op: op, Path: path.Join(t.name, name), Err: err}
}

// A place is where a path leads.
type place struct {
	path  string // without links
	info  fs.FileInfo
	links []string // that were followed, without links on the way themselves
}

// maxLinks is MAXSYMLINKS of Linux: more are a loop (path_resolution(7)).
const maxLinks = 40

// find follows all links of a path, absolute or relative to the tree.
func (t *tree) find(name string) (place, error) {
	at := place{path: "."}
	for rest := strings.Split(name, "/"); ; {
		info, err := t.lstat(at.path)
		if err != nil {
			return place{}, err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if len(at.links) == maxLinks {
				return place{}, t.error("follow", name, syscall.ELOOP)
			}
			target, err := t.readlink(at.path)
			if err != nil {
				return place{}, err
			}
			at.links = append(at.links, at.path)
			at.path = path.Dir(at.path)
			if path.IsAbs(target) {
				at.path = "."
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		at.info = info
		for len(rest) > 0 && (rest[0] == "" || rest[0] == ".") {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return at, nil
		}
		if !info.IsDir() {
			return place{}, t.error("stat", name, syscall.ENOTDIR)
		}
		if rest[0] == ".." {
			at.path = path.Dir(at.path) // ".." of the tree is the tree
		} else {
			at.path = path.Join(at.path, rest[0])
		}
		rest = rest[1:]
	}
}

// readlink asks once for each path, as lstat does.
func (t *tree) readlink(name string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if target, ok := t.links[name]; ok {
		return target, nil
	}
	dir, err := t.dirLocked(path.Dir(name))
	if err != nil {
		return "", err
	}
	target, err := dir.Readlink(path.Base(name))
	if err != nil {
		return "", t.error("readlink", name, err)
	}
	t.links[name] = target
	return target, nil
}

// forget drops what is known of a path that is about to change.
func (t *tree) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.infos, name)
	delete(t.links, name)
}

// open opens a regular file whose path has no links.
func (t *tree) open(name string) (*os.File, error) {
	dir, err := t.dir(path.Dir(name))
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK, for if it is a FIFO by now nobody need ever write into it.
	f, err := dir.OpenFile(path.Base(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, t.error("open", name, err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, t.error("open", name, errors.New("not a regular file"))
	}
	return f, nil
}

// readFile reads a text, following links. More than a megabyte is none.
func (t *tree) readFile(name string) (string, error) {
	at, err := t.find(name)
	if err != nil {
		return "", err
	}
	f, err := t.open(at.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const limit = 1 << 20
	text, err := io.ReadAll(io.LimitReader(f, limit))
	if err == nil && len(text) == limit {
		err = t.error("read", name, errors.New("too long for a text"))
	}
	return string(text), err
}

// readDir lists a folder whose path has no links, sorted.
func (t *tree) readDir(name string) ([]fs.DirEntry, error) {
	dir, err := t.dir(name)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, t.error("read", name, err)
	}
	return entries, nil
}

// glob is the paths that match a pattern, whose folders may be links.
func (t *tree) glob(pattern string) []string {
	found := []string{"/"}
	for part := range strings.SplitSeq(strings.Trim(path.Clean(pattern), "/"), "/") {
		var next []string
		for _, dir := range found {
			next = append(next, t.match(dir, part)...)
		}
		found = next
	}
	return found
}

func (t *tree) match(dir, part string) (found []string) {
	if !strings.ContainsAny(part, "*?[\\") {
		if _, err := t.find(path.Join(dir, part)); err != nil {
			return nil
		}
		return []string{path.Join(dir, part)}
	}
	at, err := t.find(dir)
	if err != nil || !at.info.IsDir() {
		return nil
	}
	entries, err := t.readDir(at.path)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if ok, _ := path.Match(part, e.Name()); ok { // patterns were checked
			found = append(found, path.Join(dir, e.Name()))
		}
	}
	return found
}
