package world

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// searchPath is where binaries are searched by name, whatever the caller's
// PATH says: it is the one of login(1) for root, and what /etc/profile sets.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// command finds a binary by name or path.
func (c *collector) command(name string) (place, error) {
	if path.IsAbs(name) {
		at, err := c.t.find(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = c.unknown(name, path.Base(name))
		}
		if err == nil && !at.info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file", name)
		}
		return at, err
	}
	if at, found := c.search(name); found {
		return at, nil
	}
	return place{}, c.unknown(name, name)
}

// search looks for a binary, and says nothing about why it is not there.
func (c *collector) search(name string) (at place, found bool) {
	if path.IsAbs(name) {
		return c.t.isFile(name)
	}
	for _, dir := range searchPath {
		if at, ok := c.t.isFile(dir + "/" + name); ok && at.info.Mode()&0o111 != 0 {
			return at, true
		}
	}
	return place{}, false
}

// unknown says that a binary is not there, and which have names like it.
func (c *collector) unknown(bin, name string) error {
	if near := c.near(name); len(near) > 0 {
		return fmt.Errorf("unknown binary %q: near are %s", bin, strings.Join(near, ", "))
	}
	return fmt.Errorf("unknown binary %q: it is not in %s", bin, strings.Join(searchPath, ":"))
}

// near is up to five binaries with names like this one, the nearest first.
func (c *collector) near(name string) []string {
	distances := map[string]int{}
	for _, dir := range searchPath {
		for _, found := range c.t.glob(path.Join(dir, "*")) {
			found = path.Base(found)
			if d := distance(name, found); d <= 1+len(name)/4 {
				distances[found] = d
			}
		}
	}
	names := make([]string, 0, len(distances))
	for name := range distances {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(distances[a], distances[b]), cmp.Compare(a, b))
	})
	return names[:min(len(names), 5)]
}

// distance is how many bytes must be put in, taken out, changed or swapped with the
// next one to make one word of the other (optimal string alignment).
func distance(a, b string) int {
	above, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			change := row[j]
			if a[i] != b[j] {
				change++
			}
			next[j+1] = min(change, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], above[j-1]+1)
			}
		}
		above, row, next = row, next, above
	}
	return row[len(b)]
}

// bringCommand copies a binary that is outside of the system. What it needs is
// in the system.
func (c *collector) bringCommand(name, host string) error {
	outside, err := openTree(filepath.Dir(host))
	if err != nil {
		return err
	}
	c.outside = append(c.outside, outside)
	at, err := outside.find(filepath.Base(host))
	if err != nil {
		return err
	}
	e := &Entry{Path: path.Join("usr/local/bin", name), Mode: at.info.Mode() & (fs.ModeType | fs.ModePerm),
		Size: at.info.Size(), ModTime: at.info.ModTime(), from: outside, source: at.path}
	o, err := newLibraries(outside).object(at.path)
	if err != nil {
		return err
	}
	if err := c.m.put(e); err != nil || o == nil {
		return err
	}
	return c.scanObject(e.Path, o)
}
