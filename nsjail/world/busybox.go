package world

import (
	"bytes"
	"io"
	"io/fs"
	"path"
)

// applets puts links to BusyBox under the names of what it can do, where
// nothing else has that name.
func (c *collector) applets() error {
	for _, bin := range c.p.Bins {
		if path.Base(bin) != "busybox" {
			continue
		}
		at, err := c.command(bin)
		if err != nil {
			return err
		}
		names, err := c.t.appletNames(at.path)
		if err != nil {
			return err
		}
		for _, name := range names {
			c.own(&Entry{Path: path.Join(path.Dir(at.path), name), Mode: fs.ModeSymlink | 0o777, Link: path.Base(at.path)})
		}
	}
	return nil
}

// firstApplets is the beginning of applet_names in BusyBox, a sorted list of
// words with NULs between, and an empty one at the end (include/applet_tables.h).
var firstApplets = []byte("\x00[\x00[[\x00")

var appletName = pattern(`^[a-z0-9\[][a-z0-9_.+\-\[]*$`)

// appletNames reads from the file, which is not run, what it can do.
func (t *tree) appletNames(name string) (names []string, err error) {
	f, err := t.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const limit = 16 << 20
	text, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, err
	}
	_, list, found := bytes.Cut(text, firstApplets)
	if !found {
		return nil, nil
	}
	names = []string{"[", "[["}
	for {
		var word []byte
		if word, list, found = bytes.Cut(list, []byte{0}); !found || !appletName().Match(word) {
			return names, nil
		}
		if string(word) != "busybox" {
			names = append(names, string(word))
		}
	}
}
