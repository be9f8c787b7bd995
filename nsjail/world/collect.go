package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// A collector makes the manifest of a profile.
type collector struct {
	ctx      context.Context
	t        *tree
	given    Profile // as it was given
	p        Profile // with all that it includes
	o        Options
	m        manifest
	libs     *libraries
	identity map[string]fileID // of entries with hard links, by path in the world
	setuid   map[string]bool   // binaries that keep their bits, by path without links
	scanned  map[string]bool   // by path without links
	missing  []error
	absent   []string
	dropped  []string
	outside  []*tree // that Options.Commands are in
}

// collect resolves a profile. All that is missing is in the error.
func collect(ctx context.Context, t *tree, p Profile, o Options) (*collector, error) {
	given := p
	p, err := p.expand()
	if err != nil {
		return nil, err
	}
	if p, err = p.withServices(); err != nil {
		return nil, err
	}
	if o.Format == Initramfs && !slices.Contains(p.Bins, "busybox") {
		p = p.With(bootProfile)
	}
	c := &collector{ctx: ctx, t: t, given: given, p: p, o: o, m: manifest{}, libs: newLibraries(t),
		identity: map[string]fileID{}, setuid: map[string]bool{}, scanned: map[string]bool{}}
	for _, step := range []func() error{
		c.baseLinks, c.keepSetuid, c.bins, c.files, c.pam, c.gconv, c.trace, c.users, c.skeleton, c.services, c.boot, c.applets,
	} {
		if err := step(); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if len(c.missing) > 0 {
		return nil, allMissing(c.missing)
	}
	c.m.linkHards(c.identity)
	c.m.date(o.Epoch)
	return c, nil
}

// allMissing is all that is missing, in one line.
type allMissing []error

func (all allMissing) Error() string {
	lines := make([]string, len(all))
	for i, err := range all {
		lines[i] = err.Error()
	}
	return strings.Join(sortedUnique(lines), "; ")
}

func (all allMissing) Unwrap() []error { return all }

func (c *collector) close() {
	for _, t := range c.outside {
		t.Close()
	}
}

// baseLinks brings the links of a merged /usr, without which interpreters of
// scripts and loaders are not where programs say they are.
func (c *collector) baseLinks() error {
	for _, name := range []string{"bin", "sbin", "lib", "lib64", "usr/sbin", "usr/lib64"} {
		if at, err := c.t.find(name); err == nil && len(at.links) > 0 {
			if err := errors.Join(c.putLinks(at), c.putDirs(at.path)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *collector) keepSetuid() error {
	for _, name := range c.p.Setuid {
		at, err := c.command(name)
		if err != nil {
			return err
		}
		c.setuid[at.path] = true
	}
	return nil
}

// bins brings the binaries.
func (c *collector) bins() error {
	for _, bin := range c.p.Bins {
		name, isOptional := optional(bin)
		if host := c.o.Commands[name]; host != "" {
			if err := c.bringCommand(name, host); err != nil {
				return err
			}
			continue
		}
		at, err := c.command(name)
		switch {
		case err != nil && isOptional:
			c.absent = append(c.absent, name)
		case err != nil:
			c.missing = append(c.missing, err)
		default:
			if err := c.bringPlace(at); err != nil {
				return err
			}
		}
	}
	return nil
}

// bring copies a file, with links on the way, to where it is in the system,
// and what it needs.
func (c *collector) bring(name, by string) error {
	at, err := c.t.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		c.missing = append(c.missing, missing{name, by})
		return nil
	}
	if err != nil {
		return err
	}
	return c.bringPlace(at)
}

// bringIfThere is bring for what the world will do without.
func (c *collector) bringIfThere(patterns ...string) error {
	for _, pattern := range patterns {
		for _, name := range c.t.glob(pattern) {
			if err := c.bring(name, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *collector) bringPlace(at place) error {
	if err := c.putPlace(at); err != nil {
		return err
	}
	return c.scan(at)
}

// putPlace puts a file and what leads to it, but not what it needs.
func (c *collector) putPlace(at place) error {
	if err := errors.Join(c.putLinks(at), c.putDirs(path.Dir(at.path))); err != nil {
		return err
	}
	return c.putAs(at, at.path)
}

// putAs puts a file or, with all in it, a folder, under a path.
func (c *collector) putAs(at place, dst string) error {
	if old := c.m[dst]; old != nil && old.source == at.path && !old.Mode.IsDir() {
		return nil
	}
	e, err := c.entry(at, dst)
	if err != nil {
		return err
	}
	if err := c.m.put(e); err != nil {
		return err
	}
	if !at.info.IsDir() {
		return nil
	}
	return c.putBelow(at.path, dst)
}

// putBelow puts what is in a folder. Links are put as they are: they need not
// lead to what is in the world.
func (c *collector) putBelow(src, dst string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	entries, err := c.t.readDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from := path.Join(src, e.Name())
		info, err := c.t.lstat(from)
		if err != nil {
			return err
		}
		at := place{path: from, info: info}
		if err := c.putAs(at, path.Join(dst, e.Name())); err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			if err := c.scan(at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *collector) putLinks(at place) error {
	for _, link := range at.links {
		if c.m[link] != nil {
			continue
		}
		info, err := c.t.lstat(link)
		if err != nil {
			return err
		}
		if err := c.putDirs(path.Dir(link)); err != nil {
			return err
		}
		if err := c.putAs(place{path: link, info: info}, link); err != nil {
			return err
		}
	}
	return nil
}

// putDirs puts a folder, and those it is in, as they are in the system.
func (c *collector) putDirs(dir string) error {
	if dir == "." {
		return nil
	}
	if e := c.m[dir]; e != nil && e.from != nil {
		return nil
	}
	info, err := c.t.lstat(dir)
	if err != nil {
		return err
	}
	if err := c.putDirs(path.Dir(dir)); err != nil {
		return err
	}
	e, err := c.entry(place{path: dir, info: info}, dir)
	if err != nil {
		return err
	}
	return c.m.put(e)
}

// entry describes a file of the system under a path in the world.
func (c *collector) entry(at place, dst string) (*Entry, error) {
	const kept = fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	own := ownerOf(at.info)
	e := &Entry{Path: dst, Mode: at.info.Mode() & kept, UID: own.uid, GID: own.gid, ModTime: at.info.ModTime(), from: c.t, source: at.path}
	var err error
	switch e.Mode & fs.ModeType {
	case 0:
		e.Size = at.info.Size()
		c.dropSetuid(e)
		if own.links > 1 {
			c.identity[dst] = own.id
		}
		if !c.o.Link || !e.isShared() { // a link has those of the file
			e.Xattrs, err = c.t.xattrs(at.path)
		}
	case fs.ModeSymlink:
		e.Link, err = c.t.readlink(at.path)
	case fs.ModeDevice | fs.ModeCharDevice, fs.ModeDevice:
		e.Major, e.Minor = own.major, own.minor
	case fs.ModeDir:
	default:
		err = fmt.Errorf("/%s: pipes and sockets do not go into a world", at.path)
	}
	return e, err
}

func (c *collector) dropSetuid(e *Entry) {
	const bits = fs.ModeSetuid | fs.ModeSetgid
	if e.Mode&bits != 0 && !c.setuid[e.source] {
		e.Mode &^= bits
		c.dropped = append(c.dropped, "/"+e.Path)
	}
}

// files brings the files and folders that a profile names.
func (c *collector) files() error {
	for _, name := range c.p.Files {
		f := parseFile(name)
		found := c.t.glob(f.src)
		if f.dst == "" && len(found) == 0 {
			if f.optional {
				c.absent = append(c.absent, f.src)
			} else {
				c.missing = append(c.missing, fmt.Errorf("no such file: %s", f.src))
			}
			continue
		}
		if f.dst != "" {
			found = nil
			if err := c.bringTo(f.src, f.dst); err != nil {
				return err
			}
		}
		for _, src := range found {
			if err := c.bring(src, "the profile"); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringTo copies a file or folder to another place.
func (c *collector) bringTo(src, dst string) error {
	at, err := c.t.find(src)
	if err != nil {
		return err
	}
	to, err := c.m.locate(strings.Trim(path.Clean(dst), "/"))
	if err != nil {
		return err
	}
	if err := c.putAs(at, to); err != nil {
		return err
	}
	if at.info.Mode().IsRegular() {
		return c.scan(at)
	}
	return nil
}

// scan brings what a file needs.
func (c *collector) scan(at place) error {
	if !at.info.Mode().IsRegular() || c.scanned[at.path] {
		return nil
	}
	c.scanned[at.path] = true
	o, err := c.libs.object(at.path)
	switch {
	case err != nil:
		return err
	case o != nil:
		return c.scanObject(at.path, o)
	case at.info.Mode()&0o111 != 0:
		return c.scanScript(at.path)
	}
	return nil
}

// scanObject brings the interpreter and the libraries of an ELF file.
func (c *collector) scanObject(name string, o *object) error {
	if o.interp != "" {
		if err := c.bring(o.interp, "/"+name); err != nil {
			return err
		}
	}
	if file := c.libs.configuredFor(loaderOf(o)).file; file != "" {
		if err := c.bring(file, "the loader"); err != nil {
			return err
		}
	}
	gone, err := c.libs.closure(name, o, c.bringLibrary)
	for _, m := range gone {
		c.missing = append(c.missing, m)
	}
	return err
}

// bringLibrary puts a library, whose own libraries are found already.
func (c *collector) bringLibrary(lib library, o *loaded) error {
	for _, name := range lib.files() {
		at, err := c.t.find(name)
		if err != nil {
			return err
		}
		if err := c.putPlace(at); err != nil {
			return err
		}
		if name == lib.name && c.scanned[at.path] {
			continue
		}
		c.scanned[at.path] = true
		if err := c.bringOpened(o); err != nil {
			return err
		}
	}
	if lib.beside == "" {
		return nil
	}
	return c.putBeside(lib)
}

func (c *collector) putBeside(lib library) error {
	dir, err := c.t.find(lib.beside)
	if err != nil {
		return err
	}
	if err := errors.Join(c.putLinks(dir), c.putDirs(dir.path)); err != nil {
		return err
	}
	link := path.Join(dir.path, path.Base(lib.name))
	if c.m[link] != nil {
		return nil
	}
	return c.m.put(&Entry{Path: link, Mode: fs.ModeSymlink | 0o777, Link: lib.name})
}
