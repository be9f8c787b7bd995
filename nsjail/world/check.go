package world

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
)

// A Problem is something that will not work in a world.
type Problem struct {
	Path string `json:"path"` // absolute, in the world
	What string `json:"what"`
}

// String is one line.
func (p Problem) String() string { return p.Path + ": " + p.What }

// A checker looks for problems in a tree.
type checker struct {
	t        *tree
	libs     *libraries
	problems []Problem
	loaded   map[string]bool // libraries that a program was found to load
}

// Check looks for what is missing in a folder: libraries, interpreters, and
// what links point at.
func Check(ctx context.Context, dir string) ([]Problem, error) {
	t, err := openTree(dir)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	c := &checker{t: t, libs: newLibraries(t), loaded: map[string]bool{}, problems: []Problem{}}
	_, err = t.find("/etc/ld.so.cache")
	c.libs.noConf = err != nil
	alone := map[string]*object{} // which nothing need have been loaded for yet
	err = t.walk(ctx, func(name string, info fs.FileInfo) error {
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			c.link(name)
		case info.Mode().IsRegular():
			c.file(name, info, alone)
		}
		return nil
	})
	for name, o := range alone {
		if !c.loaded[name] {
			c.closure(name, o)
		}
	}
	return sortProblems(c.problems), err
}

func sortProblems(problems []Problem) []Problem {
	changes := map[string]Problem{}
	var keys []string
	for _, p := range problems {
		changes[p.String()] = p
		keys = append(keys, p.String())
	}
	sorted := []Problem{}
	for _, key := range sortedUnique(keys) {
		sorted = append(sorted, changes[key])
	}
	return sorted
}

func (c *checker) found(name, what string) {
	c.problems = append(c.problems, Problem{"/" + name, what})
}

// link checks that a link leads somewhere, unless it is to where things appear
// when the world runs.
func (c *checker) link(name string) {
	target, err := c.t.readlink(name)
	if err != nil {
		c.found(name, err.Error())
		return
	}
	where := target
	if !path.IsAbs(target) {
		where = path.Join("/", path.Dir(name), target)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(path.Clean(where), "/"), "/")
	switch first {
	case "proc", "sys", "dev", "run", "tmp":
		return
	}
	if _, err := c.t.find(name); err != nil {
		c.found(name, "link to "+target+", which is not there")
	}
}

// file checks what a file needs. What is no program, by not naming a loader, is
// left for later: a program may load it with its libraries around it.
func (c *checker) file(name string, info fs.FileInfo, alone map[string]*object) {
	o, err := c.libs.object(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.found(name, "not readable")
	case err != nil:
		c.found(name, strings.TrimPrefix(err.Error(), "/"+name+": "))
	case o == nil && info.Mode()&0o111 != 0:
		c.script(name)
	case o == nil:
	case o.interp == "":
		alone[name] = o
	default:
		if _, ok := c.t.isFile(o.interp); !ok {
			c.found(name, "its loader "+o.interp+" is not there")
		}
		c.closure(name, o)
	}
}

func (c *checker) script(name string) {
	words, err := c.t.interpreter(name)
	if err != nil || len(words) == 0 {
		return
	}
	if _, ok := c.t.isFile(words[0]); !ok {
		c.found(name, "its interpreter "+words[0]+" is not there")
		return
	}
	program := startedByEnv(words)
	if program == "" {
		return
	}
	for _, dir := range searchPath {
		if _, ok := c.t.isFile(path.Join(dir, program)); ok {
			return
		}
	}
	c.found(name, "its interpreter "+program+" is not there")
}

func (c *checker) closure(name string, o *object) {
	gone, err := c.libs.closure(name, o, func(lib library, _ *loaded) error {
		for _, file := range lib.files() {
			if at, err := c.t.find(file); err == nil {
				c.loaded[at.path] = true
			}
		}
		return nil
	})
	if err != nil {
		c.found(name, err.Error())
	}
	for _, m := range gone {
		c.found(name, m.what+" is not there ("+m.wanted+")")
	}
}
