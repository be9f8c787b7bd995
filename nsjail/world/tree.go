package world

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// A tree is a file system below one folder, in which links lead where they
// lead after chroot(2) into it: never out. Whoever is at home in it may change
// it meanwhile; then answers may be wrong, but are about the tree still, since
// every access is one of os.Root, or to a single name in a folder that was come
// to without links, and follows none.
//
// Paths in it are slash separated and relative; "." is the tree itself.
type tree struct {
	name    string // of the folder, for messages
	mu      sync.Mutex
	dirs    map[string]*os.Root
	handles map[string]handle // of folders, for calls that os.Root does not have, or is slow at
	infos   map[string]stat   // of paths without links on the way
	links   map[string]string // where they point
	places  map[string]place  // of folders, by any path
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
	top, err := openHandle(root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &tree{name: filepath.ToSlash(dir), dirs: map[string]*os.Root{".": root}, handles: map[string]handle{".": top},
		infos: map[string]stat{}, links: map[string]string{}, places: map[string]place{}}, nil
}

func (t *tree) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, dir := range t.dirs {
		dir.Close()
	}
	for _, h := range t.handles {
		h.close()
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
func (t *tree) handle(name string) (handle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handleLocked(name)
}

func (t *tree) handleLocked(name string) (handle, error) {
	if h, ok := t.handles[name]; ok {
		return h, nil
	}
	up, err := t.handleLocked(path.Dir(name))
	if err != nil {
		return up, err
	}
	h, err := up.folder(path.Base(name))
	if err != nil {
		return h, t.error("open", name, err)
	}
	t.handles[name] = h
	return h, nil
}

// lstat asks once for each path; folders on the way are no links.
func (t *tree) lstat(name string) (fs.FileInfo, error) {
	t.mu.Lock()
	s, ok := t.infos[name]
	t.mu.Unlock()
	if ok {
		return s.info, s.err
	}
	if dir, err := t.handle(path.Dir(name)); err != nil {
		s.err = err
	} else if s.info, err = dir.lstat(path.Base(name)); err != nil {
		s.err = t.error("stat", name, err)
	}
	t.mu.Lock()
	t.infos[name] = s
	t.mu.Unlock()
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

// find follows all links of a path, absolute or relative to the tree. The
// folders that paths begin with are found once.
func (t *tree) find(name string) (place, error) {
	dir, base := path.Split(name)
	if dir = strings.TrimRight(dir, "/"); dir == "" {
		return t.follow(place{path: "."}, name, name)
	}
	t.mu.Lock()
	at, ok := t.places[dir]
	t.mu.Unlock()
	if !ok {
		var err error
		if at, err = t.find(dir); err != nil {
			return place{}, err
		}
		t.mu.Lock()
		t.places[dir] = at
		t.mu.Unlock()
	}
	at.links = slices.Clip(at.links)
	return t.follow(at, base, name)
}

// follow goes on from a place: name is all of the path, for messages.
func (t *tree) follow(at place, more, name string) (place, error) {
	for rest := strings.Split(more, "/"); ; {
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
	target, ok := t.links[name]
	t.mu.Unlock()
	if ok {
		return target, nil
	}
	dir, err := t.handle(path.Dir(name))
	if err != nil {
		return "", err
	}
	if target, err = dir.readlink(path.Base(name)); err != nil {
		return "", t.error("readlink", name, err)
	}
	t.mu.Lock()
	t.links[name] = target
	t.mu.Unlock()
	return target, nil
}

// forget drops what is known of a path that is about to change.
func (t *tree) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.infos, name)
	delete(t.links, name)
	clear(t.places)
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

// reader opens a regular file whose path has no links, to be read in pieces.
func (t *tree) reader(name string) (reader, error) {
	dir, err := t.handle(path.Dir(name))
	if err != nil {
		return reader{}, err
	}
	r, err := dir.reader(path.Base(name))
	if err != nil {
		return r, t.error("open", name, err)
	}
	return r, nil
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
