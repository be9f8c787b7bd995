package world

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// An Entry is one file of a world: a regular file, a folder, a symbolic link
// or a device.
type Entry struct {
	Path         string // in the world, relative, slash separated
	Mode         fs.FileMode
	UID, GID     int
	Size         int64 // bytes, of a regular file
	ModTime      time.Time
	Link         string            // where a symbolic link points
	Same         string            // the path of the entry that this is a hard link to
	Major, Minor uint32            // of a device
	Xattrs       map[string]string // extended attributes (xattr(7)), such as security.capability

	from    *tree  // where its bytes are; nil: in content
	source  string // its path there, without links
	content string
}

// A manifest is all that goes into a world, by path. A path below one that is
// not a folder is never in it: what writes it need not look where links lead.
type manifest map[string]*Entry

// sorted has folders before what is in them.
func (m manifest) sorted() []*Entry {
	return slices.SortedFunc(maps.Values(m), func(a, b *Entry) int { return cmp.Compare(a.Path, b.Path) })
}

// locate is where in the world a path leads, with the links that are in it.
func (m manifest) locate(name string) (string, error) {
	at := "."
	links := 0
	for rest := strings.Split(name, "/"); len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		next := path.Join(at, part)
		if part == ".." {
			next = path.Dir(at)
		}
		e := m[next]
		if e == nil || e.Mode&fs.ModeSymlink == 0 || len(rest) == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("/%s: too many links", name)
		}
		if path.IsAbs(e.Link) {
			at = "."
		}
		rest = append(strings.Split(e.Link, "/"), rest...)
	}
	return at, nil
}

// put adds an entry, and plain folders on the way to it. It is an error if
// there is another one, or something other than a folder on the way.
func (m manifest) put(e *Entry) error {
	if old := m[e.Path]; old != nil && !(old.Mode.IsDir() && e.Mode.IsDir()) {
		return fmt.Errorf("/%s is wanted twice: as %s and as %s", e.Path, old, e)
	}
	if err := m.makeDirs(path.Dir(e.Path)); err != nil {
		return err
	}
	m[e.Path] = e
	return nil
}

func (m manifest) makeDirs(dir string) error {
	if dir == "." {
		return nil
	}
	if e := m[dir]; e != nil {
		if !e.Mode.IsDir() {
			return fmt.Errorf("/%s is a folder and %s", dir, e)
		}
		return nil
	}
	m[dir] = &Entry{Path: dir, Mode: fs.ModeDir | 0o755}
	return m.makeDirs(path.Dir(dir))
}

// String says what it is.
func (e *Entry) String() string {
	switch {
	case e.Mode.IsDir():
		return "a folder"
	case e.Mode&fs.ModeSymlink != 0:
		return "a link to " + e.Link
	case e.from != nil:
		return "a copy of /" + e.source
	case e.Mode.IsRegular():
		return "a file"
	}
	return "a special file"
}

// linkHards makes hard links of the entries that are the same file in the
// system; the first of each stays.
func (m manifest) linkHards(identity map[string]fileID) {
	first := map[fileID]*Entry{}
	for _, e := range m.sorted() {
		id, ok := identity[e.Path]
		if !ok {
			continue
		}
		if old := first[id]; old != nil && old.Mode == e.Mode {
			e.Same, e.Size = old.Path, 0
		} else if old == nil {
			first[id] = e
		}
	}
}

// date gives what has no time of its own one that is the same for the same
// input: the epoch or, if there is none, the time of the newest file. Nothing
// is newer than the epoch (reproducible-builds.org, SOURCE_DATE_EPOCH).
func (m manifest) date(epoch time.Time) {
	newest := epoch
	if epoch.IsZero() {
		for _, e := range m {
			if e.Mode.IsRegular() && e.ModTime.After(newest) {
				newest = e.ModTime
			}
		}
	}
	for _, e := range m {
		if e.from == nil || e.Mode.IsDir() || e.ModTime.After(newest) {
			e.ModTime = newest
		}
	}
}
