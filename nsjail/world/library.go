package world

import (
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"strings"
)

// libraries finds what ELF files need, as their loaders would, from their bytes.
type libraries struct {
	t          *tree
	objects    map[string]*object // by path without links; nil is no ELF file
	system     map[libraryKey]library
	configured map[loader]conf
	noConf     bool // ld.so.conf counts for nothing, since there is no cache of it
}

type conf struct {
	dirs []string
	file string // that the loader reads itself
}

type libraryKey struct {
	loader  loader
	class   elf.Class
	machine elf.Machine
	name    string
}

// A library is where one was found.
type library struct {
	name     string   // the path that the loader would open; "": not found
	variants []string // for other processors
	beside   string   // a link to it is needed here: the loader would not look where it is
}

// files are all of its paths, that for any processor last.
func (lib library) files() []string { return append(slices.Clone(lib.variants), lib.name) }

func newLibraries(t *tree) *libraries {
	return &libraries{t: t, objects: map[string]*object{}, system: map[libraryKey]library{}, configured: map[loader]conf{}}
}

// object reads a file, whose path has no links, if it is ELF: nil if not.
func (l *libraries) object(name string) (*object, error) {
	if o, ok := l.objects[name]; ok {
		return o, nil
	}
	f, err := l.t.reader(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o, err := readObject(f)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	l.objects[name] = o
	return o, nil
}

// A loaded object is one in the memory of a process to be.
type loaded struct {
	*object
	path string  // by which it was opened
	by   *loaded // what needs it; nil for the program
}

// through is the objects from the program to this one, for messages.
func (o *loaded) through() string {
	if o.by == nil {
		return o.path
	}
	return o.by.through() + " through " + o.path
}

// A missing library, or interpreter, is one that is not there.
type missing struct {
	what, wanted string // by whom
}

func (m missing) Error() string { return fmt.Sprintf("%s not found: %s wants it", m.what, m.wanted) }

// closure finds all libraries of a program, in the order of loading: a name
// that is loaded is not searched again. Each is told to found.
func (l *libraries) closure(name string, program *object, found func(library, *loaded) error) (gone []missing, err error) {
	kind := loaderOf(program)
	have := map[string]bool{}
	for queue := []*loaded{{program, "/" + strings.TrimPrefix(name, "/"), nil}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, need := range at.needed {
			if have[need] || kind.has(need) {
				continue
			}
			have[need] = true
			lib := l.search(kind, need, at)
			if lib.name == "" {
				gone = append(gone, missing{"library " + need, at.through()})
				continue
			}
			for _, file := range lib.files() {
				where, err := l.t.find(file)
				if err != nil {
					return nil, err
				}
				o, err := l.object(where.path)
				if err != nil {
					return nil, err
				}
				have[o.soname] = true
				queue = append(queue, &loaded{o, file, at})
			}
			if err := found(lib, queue[len(queue)-1]); err != nil {
				return nil, err
			}
		}
	}
	return gone, nil
}

// search finds a library that an object needs.
func (l *libraries) search(kind loader, name string, by *loaded) library {
	if strings.Contains(name, "/") {
		return l.in(path.Dir(name), path.Base(name), by.object, kind)
	}
	for _, dir := range runPath(kind, by) {
		if lib := l.in(dir, name, by.object, kind); lib.name != "" {
			return lib
		}
	}
	key := libraryKey{kind, by.class, by.machine, name}
	lib, ok := l.system[key]
	if !ok {
		lib = l.inSystem(kind, name, by.object)
		l.system[key] = lib
	}
	return lib
}

// in looks in one folder.
func (l *libraries) in(dir, name string, by *object, kind loader) (lib library) {
	if !path.IsAbs(dir) {
		return library{} // relative to where the program will be started: nobody knows
	}
	candidates := []string{path.Join(dir, name)}
	if kind == glibc {
		candidates = append(l.t.hwcaps(dir, name), candidates...)
	}
	for _, candidate := range candidates {
		at, ok := l.t.isFile(candidate)
		if !ok {
			continue
		}
		o, err := l.object(at.path)
		if err != nil || o == nil || o.class != by.class || o.machine != by.machine {
			continue // loaders pass over what is for another machine as well
		}
		if lib.name != "" {
			lib.variants = append(lib.variants, lib.name)
		}
		lib.name = candidate
	}
	return lib
}

// inSystem looks in the folders that hold for all. In the world there is no
// ld.so.cache, without which glibc looks in its own folders alone; a library
// that only ld.so.conf tells of gets a link there.
func (l *libraries) inSystem(kind loader, name string, by *object) library {
	builtIn := kind.builtIn(platformOf(by))
	c := l.configuredFor(kind)
	for _, dir := range slices.Concat(c.dirs, builtIn) {
		lib := l.in(dir, name, by, kind)
		if lib.name == "" {
			continue
		}
		if kind == glibc && !l.among(dir, builtIn) {
			lib.beside = builtIn[1]
			if libc := l.search(kind, "libc.so.6", &loaded{object: by}); libc.name != "" && name != "libc.so.6" {
				lib.beside = path.Dir(libc.name)
			}
		}
		return lib
	}
	return library{}
}

// configuredFor reads the loader's configuration once.
func (l *libraries) configuredFor(kind loader) conf {
	if kind == glibc && l.noConf {
		return conf{}
	}
	c, ok := l.configured[kind]
	if !ok {
		c.dirs, c.file = l.t.configured(kind)
		l.configured[kind] = c
	}
	return c
}

// among reports whether a folder is one of others, by whatever path.
func (l *libraries) among(dir string, others []string) bool {
	where := func(dir string) string {
		at, _ := l.t.find(dir)
		return at.path
	}
	at := where(dir)
	return slices.ContainsFunc(others, func(other string) bool { return where(other) == at })
}

// runPath is the folders that objects themselves name. DT_RUNPATH turns
// DT_RPATH off, which else holds for all that the object loads (ld.so(8));
// to musl they are the same and both are passed on.
func runPath(kind loader, by *loaded) (dirs []string) {
	if kind != musl && len(by.runpath) > 0 {
		return by.expand(by.runpath)
	}
	for o := by; o != nil && o.object != nil; o = o.by {
		switch {
		case len(o.runpath) == 0:
			dirs = append(dirs, o.expand(o.rpath)...)
		case kind == musl:
			dirs = append(dirs, o.expand(o.runpath)...)
		}
	}
	return dirs
}

// expand replaces what ld.so(8) calls dynamic string tokens. $LIB depends on
// how the loader was built: both ways are tried.
func (o *loaded) expand(dirs []string) (expanded []string) {
	p := platformOf(o.object)
	for _, dir := range dirs {
		for _, lib := range slices.Compact([]string{p.lib, "lib/" + p.triplet}) {
			tokens := strings.NewReplacer("${ORIGIN}", path.Dir(o.path), "$ORIGIN", path.Dir(o.path),
				"${LIB}", lib, "$LIB", lib, "${PLATFORM}", p.name, "$PLATFORM", p.name)
			expanded = append(expanded, tokens.Replace(dir))
		}
	}
	return slices.Compact(expanded)
}
