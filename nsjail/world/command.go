package world

import (
	"cmp"
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
		if err == nil && !at.info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file", name)
		}
		return at, err
	}
	for _, dir := range searchPath {
		if at, ok := c.t.isFile(path.Join(dir, name)); ok && at.info.Mode()&0o111 != 0 {
			return at, nil
		}
	}
	if near := c.near(name); len(near) > 0 {
		return place{}, fmt.Errorf("unknown binary %q: %s are near", name, strings.Join(near, ", "))
	}
	return place{}, fmt.Errorf("unknown binary %q: it is not in %s", name, strings.Join(searchPath, ":"))
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

// distance is how many bytes must be put in, taken out or changed to make one
// word of the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
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
