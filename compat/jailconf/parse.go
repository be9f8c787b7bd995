package jailconf

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What a configuration may have at most. Those of people are far below.
const (
	maxFile     = 4 << 20 // bytes of one file
	maxAll      = 16 << 20
	maxFiles    = 1000
	maxIncludes = 16 // files that include one another
	maxNesting  = 16 // blocks in blocks
	maxErrors   = 20
	maxParams   = 1000     // of one jail
	maxDepth    = 100      // variables in variables
	maxExpanded = 16 << 20 // bytes of all values of all jails, variables substituted
)

// Parse reads a jail.conf(5). The name is for messages, and its folder is where
// included files with relative names are; open opens these, or os.Open if it
// is nil. The error is of type [Errors], or from r.
//
// Beside what FreeBSD's jail(8) reads, a block inside a jail whose name is the
// first part of parameters' names holds such parameters: "allow { mount; }" is
// "allow.mount;". One with another name is a child jail, as on FreeBSD.
func Parse(name string, r io.Reader, open func(path string) (io.ReadCloser, error)) (*Config, error) {
	return newParser(open, filepath.Glob).config(name, r)
}

// A parser reads files into blocks.
type parser struct {
	open   func(path string) (io.ReadCloser, error)
	glob   func(pattern string) ([]string, error)
	blocks []*block
	errs   Errors

	bytes, files int      // read so far
	including    []string // the files that are being read
}

// A block is a jail as it is written: a wildcard, a jail's definition, or what
// stands outside of all.
type block struct {
	name   string
	at     int // its place among all blocks
	pos    Position
	params []rawParam
}

// A rawParam is a parameter as it is written.
type rawParam struct {
	name     string
	variable bool // it is named $NAME
	appends  bool // by +=
	values   []rawValue
	pos      Position
}

// A rawValue is a string out of pieces.
type rawValue []token

func newParser(open func(string) (io.ReadCloser, error), glob func(string) ([]string, error)) *parser {
	if open == nil {
		open = func(path string) (io.ReadCloser, error) { return os.Open(path) }
	}
	return &parser{open: open, glob: glob}
}

func (p *parser) config(name string, r io.Reader) (*Config, error) {
	if err := p.file(name, r); err != nil {
		return nil, err
	}
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return p.resolve()
}

func (p *parser) fail(e *Error) {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, e)
	}
}

func (p *parser) failAt(pos Position, token, format string, args ...any) {
	p.fail(&Error{Pos: pos, Token: token, Msg: fmt.Sprintf(format, args...)})
}

// file reads one file. Only what reading itself says is returned; the rest is
// in errs.
func (p *parser) file(name string, r io.Reader) error {
	text, err := readAll(name, r)
	if err != nil {
		return err
	}
	p.bytes += len(text)
	p.files++
	if p.bytes > maxAll || p.files > maxFiles {
		p.failAt(Position{name, 1, 1}, "", "there is more to read than %d files and %d MiB: does a file include itself?", maxFiles, maxAll>>20)
		return nil
	}
	p.including = append(p.including, name)
	defer func() { p.including = p.including[:len(p.including)-1] }()
	f := &fileParser{parser: p, lex: newLexer(name, text, p.fail)}
	f.next()
	f.conf()
	return nil
}

func readAll(name string, r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxFile {
		return "", Errors{{Pos: Position{name, 1, 1}, Msg: fmt.Sprintf("the file is larger than %d MiB, which no configuration is", maxFile>>20)}}
	}
	return string(text), nil
}

// A fileParser has the grammar: recursive descent with one token ahead.
type fileParser struct {
	*parser
	lex *lexer
	tok token
}

func (f *fileParser) next() { f.tok = f.lex.next() }

// conf is all of a file.
func (f *fileParser) conf() {
	for f.tok.kind != tokenEnd && len(f.errs) < maxErrors {
		if f.tok.kind == '}' {
			f.failAt(f.tok.pos, "}", "} closes nothing: is there one too many, or a { missing?")
			f.next()
			continue
		}
		f.statement(nil, "", 0)
	}
}

// statement is a parameter or a block, in a jail or, if that is nil, outside
// of all. Prefix is that of the parameters in a block of parameters.
func (f *fileParser) statement(jail *block, prefix string, depth int) {
	switch f.tok.kind {
	case ';':
		f.next()
		return
	case tokenText, tokenVariable:
	default:
		f.unexpected("want the name of a jail or of a parameter")
		f.recover()
		return
	}
	param := rawParam{pos: f.tok.pos, variable: f.tok.kind == tokenVariable, name: prefix + f.tok.text}
	f.name(&param)
	if f.tok.kind == '{' && !param.variable {
		f.block(jail, prefix, param, depth)
		return
	}
	if !f.values(&param) || !f.semicolon(param) {
		f.recover()
		return
	}
	f.keep(jail, param)
}

// name is one piece of text, or several without a blank between them.
func (f *fileParser) name(param *rawParam) {
	for f.next(); f.tok.joined && f.tok.kind == tokenText && !param.variable; f.next() {
		param.name += f.tok.text
	}
}

// values are what is behind the name, and whether they make sense.
func (f *fileParser) values(param *rawParam) bool {
	switch f.tok.kind {
	case '=':
		f.next()
	case tokenAppend:
		param.appends = true
		f.next()
	case tokenText, tokenVariable:
		if f.tok.joined {
			f.unexpected("a parameter's name has no variables")
			return false
		}
	default:
		return true
	}
	for {
		if f.tok.kind != tokenText && f.tok.kind != tokenVariable {
			f.unexpected("want a value for " + param.name)
			return false
		}
		param.values = append(param.values, f.value())
		if f.tok.kind != ',' {
			return true
		}
		f.next()
	}
}

func (f *fileParser) value() rawValue {
	v := rawValue{f.tok}
	for f.next(); f.tok.joined && (f.tok.kind == tokenText || f.tok.kind == tokenVariable); f.next() {
		v = append(v, f.tok)
	}
	return v
}

func (f *fileParser) semicolon(param rawParam) bool {
	if f.tok.kind == ';' {
		f.next()
		return true
	}
	f.unexpected("want ; behind " + param.name)
	return false
}

func (f *fileParser) unexpected(want string) {
	if f.tok.kind == tokenEnd {
		f.failAt(f.tok.pos, "", "the file ends: %s", want)
		return
	}
	f.failAt(f.tok.pos, f.tok.raw, "%q does not fit: %s", f.tok.raw, want)
}

// recover goes on behind the next semicolon, or before the next brace.
func (f *fileParser) recover() {
	for f.tok.kind != tokenEnd && f.tok.kind != ';' && f.tok.kind != '}' {
		if f.tok.kind == '{' {
			f.next()
			return
		}
		f.next()
	}
	if f.tok.kind == ';' {
		f.next()
	}
}

// block is what is in braces, with the name before it already read.
func (f *fileParser) block(jail *block, prefix string, head rawParam, depth int) {
	if depth == maxNesting {
		f.failAt(head.pos, head.name, "%s: blocks are nested deeper than %d", head.name, maxNesting)
		f.skipBlock()
		return
	}
	inner := ""
	switch {
	case jail != nil && isGroup(head.name):
		inner = head.name + "."
	case prefix != "":
		f.failAt(head.pos, head.name, "no parameters begin with %s", head.name)
		f.skipBlock()
		return
	case jail != nil:
		head.name = jail.name + "." + head.name
		jail = f.newBlock(head)
	default:
		jail = f.newBlock(head)
	}
	f.next()
	for f.tok.kind != '}' && f.tok.kind != tokenEnd && len(f.errs) < maxErrors {
		f.statement(jail, inner, depth+1)
	}
	if f.tok.kind != '}' {
		f.failAt(f.tok.pos, "", "the file ends inside %s, which begins at %s: want }", head.name, head.pos)
		return
	}
	f.next()
}

// skipBlock goes behind the brace that ends the block.
func (f *fileParser) skipBlock() {
	for open := 0; f.tok.kind != tokenEnd; {
		switch f.tok.kind {
		case '{':
			open++
		case '}':
			open--
		}
		f.next()
		if open == 0 {
			return
		}
	}
}

func (f *fileParser) newBlock(head rawParam) *block {
	if why := badName(head.name); why != "" {
		f.failAt(head.pos, head.name, "bad name %q of a jail: %s", head.name, why)
	}
	b := &block{name: head.name, pos: head.pos}
	f.blocks = append(f.blocks, b)
	return b
}

// badName says why a jail cannot have a name. On Linux it is the name of files.
func badName(name string) string {
	parts := strings.Split(name, ".")
	switch {
	case slices.Contains(parts, ""):
		return "a part of it is empty"
	case len(name) > 255:
		return "it is longer than 255 bytes"
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' }):
		return "it has a slash or a control character"
	case slices.ContainsFunc(parts, func(s string) bool { return s != "*" && strings.Contains(s, "*") }):
		return "a * stands for a whole part of a name, as in * or web.*"
	}
	return ""
}

// isGroup reports whether parameters' names begin with a name and a dot, and
// there is none of that name that a block could be mistaken for.
func isGroup(name string) bool {
	for known := range table {
		if strings.HasPrefix(known, name+".") {
			return true
		}
	}
	return false
}

// keep stores a parameter, or includes what it names.
func (f *fileParser) keep(jail *block, param rawParam) {
	if param.name == ".include" && !param.variable {
		f.include(jail, param)
		return
	}
	if jail == nil {
		jail = f.global(param.pos)
	}
	jail.params = append(jail.params, param)
}

// global is the wildcard block that a parameter outside of all blocks goes to:
// one of its own between each two blocks, since the order counts.
func (p *parser) global(pos Position) *block {
	if n := len(p.blocks); n > 0 && p.blocks[n-1].name == "*" {
		return p.blocks[n-1]
	}
	b := &block{name: "*", pos: pos}
	p.blocks = append(p.blocks, b)
	return b
}
