package jailconf

import (
	"fmt"
	"strconv"
	"strings"
)

// A token is one of ; , = { } += or a piece of text.
type token struct {
	kind   tokenKind
	text   string // what it says, without quotes and escapes; of a variable, the name
	raw    string // as it stands in the file, for messages
	joined bool   // it follows the token before it without a blank
	pos    Position
}

type tokenKind byte

const (
	tokenEnd      tokenKind = 0
	tokenText     tokenKind = 't'
	tokenVariable tokenKind = '$'
	tokenAppend   tokenKind = '+'
	// Others are the characters themselves: ; , = { }
)

// A lexer cuts a jail.conf into tokens, by the rules of jaillex.l in FreeBSD's
// usr.sbin/jail. A piece of text ends where a quote begins or ends, and pieces
// without a blank between them are one string.
type lexer struct {
	file   string
	text   string
	at     int
	line   int
	begin  int // where the line begins
	quoted int // where the double-quoted string began that at is in, or -1
	joined bool
	fail   func(*Error)
}

func newLexer(file, text string, fail func(*Error)) *lexer {
	return &lexer{file: file, text: text, line: 1, quoted: -1, fail: fail}
}

func (l *lexer) pos() Position {
	return Position{File: l.file, Line: l.line, Col: l.at - l.begin + 1}
}

// advance goes over n bytes, counting lines, and returns them.
func (l *lexer) advance(n int) string {
	s := l.text[l.at : l.at+n]
	for i := range len(s) {
		if s[i] == '\n' {
			l.line++
			l.begin = l.at + i + 1
		}
	}
	l.at += n
	return s
}

func (l *lexer) rest() string { return l.text[l.at:] }

// next is the next token; at the end it is tokenEnd, again and again.
func (l *lexer) next() token {
	if l.quoted >= 0 {
		if t, ok := l.inQuotes(); ok {
			return t
		}
	}
	l.skipBlanks()
	t := token{pos: l.pos(), joined: l.joined}
	if l.at == len(l.text) {
		return t
	}
	switch c := l.text[l.at]; {
	case strings.HasPrefix(l.rest(), "+="):
		t.kind, t.raw = tokenAppend, l.advance(2)
		l.joined = false
	case strings.IndexByte(";,={}", c) >= 0:
		t.kind, t.raw = tokenKind(c), l.advance(1)
		l.joined = false
	case c == '\'':
		l.singleQuoted(&t)
	case c == '"':
		l.quoted = l.at
		l.advance(1)
		// The string may begin with a variable, which is then a piece of it.
		if t, ok := l.inQuotes(); ok {
			return t
		}
		t.kind, t.raw = tokenText, `""`
		l.joined = true
	case c == '$' && l.variableLength("\n{}") > 0:
		l.variable(&t, "\n{}")
	default:
		l.unquoted(&t)
	}
	return t
}

// skipBlanks goes over white space and comments. Both end a string.
func (l *lexer) skipBlanks() {
	for l.at < len(l.text) {
		switch r := l.rest(); {
		case strings.IndexByte(" \t\r\n", r[0]) >= 0:
			l.advance(1)
		case r[0] == '#' || strings.HasPrefix(r, "//"):
			l.advance(lineLength(r))
		case strings.HasPrefix(r, "/*"):
			end := strings.Index(r[2:], "*/")
			if end < 0 {
				l.failAt(l.pos(), "/*", "the comment has no end: want */")
				end = len(r) - 4
			}
			l.advance(end + 4)
		default:
			return
		}
		l.joined = false
	}
}

// lineLength is how far the line goes, without its end.
func lineLength(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}

// unquotedChars are those that a string may have without quotes, beside
// letters, digits and the pieces of one character.
const unquotedChars = "_!%&()-.:<>?@[]^`|~"

func isUnquoted(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(unquotedChars, c) >= 0
}

// unquoted reads text up to whatever may mean something. Bytes that are not
// ASCII are text here, unlike on FreeBSD, where they are a syntax error.
func (l *lexer) unquoted(t *token) {
	l.joined = true
	t.kind = tokenText
	r := l.rest()
	n := 0
	for n < len(r) && (isUnquoted(r[n]) || r[n] >= 0x80) {
		n++
	}
	switch {
	case n > 0:
		t.raw = l.advance(n)
		t.text = t.raw
	case r[0] == '\\':
		t.raw = l.advance(escapeLength(r))
		t.text = unescape(t.raw)
	case strings.IndexByte("$*+/", r[0]) >= 0:
		t.raw = l.advance(1)
		t.text = t.raw
	default: // a control character
		l.failAt(t.pos, r[:1], "%q means nothing here: put it into quotes", r[:1])
		t.raw = l.advance(1)
	}
}

func (l *lexer) singleQuoted(t *token) {
	r := l.rest()
	n := 1
	for n < len(r) && r[n] != '\'' {
		if r[n] == '\\' && n+1 < len(r) {
			n++
		}
		n++
	}
	if n >= len(r) {
		l.unterminated(t, "'")
		return
	}
	t.kind, t.raw = tokenText, l.advance(n+1)
	t.text = unescape(t.raw[1:n])
	l.joined = true
}

// inQuotes reads the next piece of a double-quoted string, up to a variable or
// the end. At the end there is none.
func (l *lexer) inQuotes() (token, bool) {
	t := token{kind: tokenText, pos: l.pos(), joined: l.joined}
	start := l.at
	r := l.rest()
	n := 0
	for n < len(r) && r[n] != '"' && (r[n] != '$' || n == 0 && l.variableLength("\n\"{}") == 0) {
		if r[n] == '\\' && n+1 < len(r) {
			n++
		}
		n++
	}
	n = min(n, len(r))
	switch {
	case n == 0 && r != "" && r[0] == '$':
		l.variable(&t, "\n\"{}")
		return t, true
	case n == 0 && r != "": // the quote
		empty := start == l.quoted+1
		l.quoted = -1
		l.advance(1)
		if empty {
			return token{}, false
		}
		return l.next(), true
	case n == len(r):
		l.unterminated(&t, `"`)
		return t, true
	}
	if start == l.quoted+1 {
		t.pos.Col-- // the quote belongs to it
	}
	t.raw = l.advance(n)
	t.text = unescape(t.raw)
	l.joined = true
	return t, true
}

// unterminated complains of a string that has no end, and goes on in the line
// below where it began.
func (l *lexer) unterminated(t *token, quote string) {
	pos := t.pos
	if l.quoted >= 0 {
		l.at = l.quoted
		pos = l.rewind()
		l.quoted = -1
	}
	l.failAt(pos, quote, "the string has no end: want %s", quote)
	t.kind, t.raw = tokenText, l.advance(lineLength(l.rest()))
	l.joined = false
}

// rewind finds the line of at again.
func (l *lexer) rewind() Position {
	l.line = 1 + strings.Count(l.text[:l.at], "\n")
	l.begin = strings.LastIndexByte(l.text[:l.at], '\n') + 1
	return l.pos()
}

// variableLength is that of the variable that begins here, or 0 if a dollar
// sign is only that. One in braces has any characters but some.
func (l *lexer) variableLength(notInBraces string) int {
	r := l.rest()
	if strings.HasPrefix(r, "${") {
		n := 2
		for n < len(r) && strings.IndexByte(notInBraces, r[n]) < 0 {
			n++
		}
		return n // of an unterminated one what there is of it
	}
	n := 1
	for n < len(r) && isWordByte(r[n], n > 1) {
		n++
	}
	if n == 1 {
		return 0
	}
	return n
}

// isWordByte is for names of shell variables.
func isWordByte(c byte, digits bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || digits && c >= '0' && c <= '9'
}

func (l *lexer) variable(t *token, notInBraces string) {
	t.kind = tokenVariable
	t.raw = l.advance(l.variableLength(notInBraces))
	t.text = t.raw[1:]
	l.joined = true
	if !strings.HasPrefix(t.text, "{") {
		return
	}
	t.text = unescape(t.text[1:])
	if strings.HasPrefix(l.rest(), "}") && t.text != "" {
		t.raw += l.advance(1)
		return
	}
	l.failAt(t.pos, t.raw, "%s is not a variable: want ${NAME}", t.raw)
	if strings.HasPrefix(l.rest(), "}") {
		l.advance(1)
	}
	t.kind = tokenText
}

func (l *lexer) failAt(pos Position, token, format string, args ...any) {
	l.fail(&Error{Pos: pos, Token: token, Msg: fmt.Sprintf(format, args...)})
}

// escapeLength is that of the escape sequence that s begins with: a backslash
// and one character, or up to three octal digits, or x and up to two
// hexadecimal ones.
func escapeLength(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	digits, most := "01234567", 3
	from := 1
	if s[1] == 'x' {
		digits, most, from = "0123456789abcdefABCDEF", 2, 2
	}
	n := from
	for n < len(s) && n-from < most && strings.IndexByte(digits, s[n]) >= 0 {
		n++
	}
	return max(n, 2)
}

var escapes = map[byte]byte{'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v'}

// unescape replaces escape sequences. A newline behind a backslash vanishes.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for s != "" {
		if s[0] != '\\' {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		n := escapeLength(s)
		b.WriteString(unescaped(s[1:n]))
		s = s[n:]
	}
	return b.String()
}

// unescaped is what one sequence stands for, given without its backslash.
func unescaped(s string) string {
	switch {
	case s == "" || s == "\n":
		return ""
	case s[0] >= '0' && s[0] <= '7':
		n, _ := strconv.ParseUint(s, 8, 16)
		return string([]byte{byte(n)})
	case s[0] == 'x':
		n, _ := strconv.ParseUint("0"+s[1:], 16, 16)
		return string([]byte{byte(n)})
	}
	if c, ok := escapes[s[0]]; ok {
		return string([]byte{c})
	}
	return s
}
