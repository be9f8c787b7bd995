package jailconf

import (
	"path/filepath"
	"slices"
	"strings"
)

// include reads the files that .include names, which are patterns (glob(7)),
// relative to the folder of the file that has the line. That a plain name is of
// no file is an error, that a pattern fits none is not.
func (f *fileParser) include(jail *block, param rawParam) {
	if jail != nil {
		f.failAt(param.pos, param.name, ".include is inside a jail: put it outside of all blocks")
		return
	}
	if len(param.values) == 0 {
		f.failAt(param.pos, param.name, `.include names no file: want .include "FILE";`)
	}
	for _, value := range param.values {
		f.includeValue(param.pos, value)
	}
}

func (f *fileParser) includeValue(pos Position, value rawValue) {
	var name string
	for _, piece := range value {
		if piece.kind == tokenVariable {
			f.failAt(piece.pos, piece.raw, ".include has a variable, %s: want the name itself", piece.raw)
			return
		}
		name += piece.text
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(f.lex.file), name)
	}
	paths := []string{name}
	if strings.ContainsAny(name, "*?[") {
		var err error
		if paths, err = f.glob(name); err != nil {
			f.failAt(pos, name, ".include: bad pattern %q: %v", name, err)
			return
		}
	}
	for _, path := range paths {
		f.includeFile(pos, path)
	}
}

func (p *parser) includeFile(pos Position, path string) {
	if len(p.errs) >= maxErrors {
		return
	}
	if slices.Contains(p.including, path) {
		p.failAt(pos, path, ".include: %s includes itself: %s", path, strings.Join(append(slices.Clone(p.including), path), " -> "))
		return
	}
	if len(p.including) >= maxIncludes {
		p.failAt(pos, path, ".include: files are included deeper than %d: does one include itself by another name?", maxIncludes)
		return
	}
	file, err := p.open(path)
	if err != nil {
		p.failAt(pos, path, ".include: %v", err)
		return
	}
	defer file.Close()
	if err := p.file(path, file); err != nil {
		p.failAt(pos, path, ".include: %v", err)
	}
}
