package jailconf

import (
	"fmt"
	"strings"
)

// A shellVar is a variable that a file sets.
type shellVar struct {
	value string
	pos   Position
}

// maxShell is how long the value of a variable may be, and maxShellAll how long
// all that were ever assigned together.
const (
	maxShell    = 64 << 10
	maxShellAll = 16 << 20
)

// A shellReader reads the part of sh(1) that rc.conf(5) needs: assignments,
// with quotes, escapes, comments, ${NAME} and ${NAME:-DEFAULT}. Nothing is run.
// What else there is, is an error: it might set what is read here.
type shellReader struct {
	file  string
	text  string
	at    int
	vars  map[string]shellVar
	spent int
	errs  Errors
	line  int
	begin int
}

func readShell(file, text string) (map[string]shellVar, Errors) {
	s := &shellReader{file: file, text: text, vars: map[string]shellVar{}, line: 1}
	for s.at < len(s.text) && len(s.errs) < maxErrors {
		if err := s.statement(); err != nil {
			s.errs = append(s.errs, err)
			s.skipLine()
		}
	}
	return s.vars, s.errs
}

func (s *shellReader) pos() Position { return Position{s.file, s.line, s.at - s.begin + 1} }

func (s *shellReader) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *shellReader) has(prefix string) bool { return strings.HasPrefix(s.text[s.at:], prefix) }

func (s *shellReader) take() byte {
	c := s.text[s.at]
	s.at++
	if c == '\n' {
		s.line++
		s.begin = s.at
	}
	return c
}

func (s *shellReader) skipLine() {
	for s.at < len(s.text) && s.take() != '\n' {
	}
}

// errorf is about the text from pos on to the end of its line.
func (s *shellReader) errorf(pos Position, format string, args ...any) *Error {
	line := strings.TrimSpace(strings.SplitN(s.text[min(s.begin, len(s.text)):], "\n", 2)[0])
	return &Error{Pos: pos, Token: line, Msg: fmt.Sprintf(format, args...)}
}

// statement reads up to where a statement ends.
func (s *shellReader) statement() *Error {
	for s.at < len(s.text) {
		switch {
		case s.has("\\\n"):
			s.take()
			s.take()
		case strings.IndexByte(" \t\r\n;", s.peek()) >= 0:
			s.take()
		case s.peek() == '#':
			s.skipLine()
		default:
			return s.assignment()
		}
	}
	return nil
}

// assignment reads NAME=VALUE, or the word export, which changes nothing.
func (s *shellReader) assignment() *Error {
	pos := s.pos()
	name := s.name()
	if name == "export" && (s.peek() == ' ' || s.peek() == '\t') {
		return nil
	}
	if name == "" || s.peek() != '=' {
		word, _, _ := strings.Cut(strings.TrimSpace(strings.SplitN(s.text[s.begin+pos.Col-1:], "\n", 2)[0]), " ")
		return s.errorf(pos, "%q is not an assignment: this is read, not run, and knows NAME=\"VALUE\" only", word)
	}
	s.take()
	value, err := s.word("")
	if err != nil {
		return err
	}
	if s.spent += len(name) + len(value); len(value) > maxShell || s.spent > maxShellAll {
		return s.errorf(pos, "%s: its value comes to more than %d KiB, or all to more than %d MiB", name, maxShell>>10, maxShellAll>>20)
	}
	s.vars[name] = shellVar{value, pos}
	return nil
}

func (s *shellReader) name() string {
	start := s.at
	for s.at < len(s.text) && isWordByte(s.peek(), s.at > start) {
		s.at++
	}
	return s.text[start:s.at]
}

// word reads a value up to a blank, or, inside ${}, up to the brace in stop.
func (s *shellReader) word(stop string) (string, *Error) {
	var b strings.Builder
	for s.at < len(s.text) {
		c := s.peek()
		switch {
		case stop == "" && strings.IndexByte(" \t\r\n;", c) >= 0, stop != "" && strings.IndexByte(stop, c) >= 0:
			return b.String(), nil
		case strings.IndexByte("&|<>()", c) >= 0 && stop == "":
			return "", s.errorf(s.pos(), "%q is for the shell: this is read, not run; put it into quotes", string(c))
		}
		part, err := s.piece(stop != "")
		if err != nil {
			return "", err
		}
		if b.WriteString(part); b.Len() > maxShell {
			return "", s.errorf(s.pos(), "the value comes to more than %d KiB", maxShell>>10)
		}
	}
	return b.String(), nil
}

// piece reads a quoted string, an escape, a variable, or one character.
func (s *shellReader) piece(inBraces bool) (string, *Error) {
	switch s.peek() {
	case '\'':
		return s.single()
	case '"':
		return s.double()
	case '\\':
		return s.escape(false), nil
	case '$', '`':
		return s.dollar(inBraces)
	}
	return string([]byte{s.take()}), nil
}

func (s *shellReader) single() (string, *Error) {
	pos := s.pos()
	s.take()
	start := s.at
	for s.at < len(s.text) {
		if s.take() == '\'' {
			return s.text[start : s.at-1], nil
		}
	}
	return "", s.errorf(pos, "the string has no end: want '")
}

func (s *shellReader) double() (string, *Error) {
	pos := s.pos()
	s.take()
	var b strings.Builder
	for s.at < len(s.text) {
		switch s.peek() {
		case '"':
			s.take()
			return b.String(), nil
		case '\\':
			b.WriteString(s.escape(true))
		case '$', '`':
			part, err := s.dollar(false)
			if err != nil {
				return "", err
			}
			b.WriteString(part)
		default:
			b.WriteByte(s.take())
		}
		if b.Len() > maxShell {
			return "", s.errorf(pos, "the value comes to more than %d KiB", maxShell>>10)
		}
	}
	return "", s.errorf(pos, "the string has no end: want \"")
}

// escape is what a backslash and the character behind it stand for. In double
// quotes only some characters can be escaped (sh(1)).
func (s *shellReader) escape(quoted bool) string {
	s.take()
	if s.at == len(s.text) {
		return "\\"
	}
	c := s.take()
	switch {
	case c == '\n':
		return ""
	case quoted && strings.IndexByte("$`\"\\", c) < 0:
		return string([]byte{'\\', c})
	}
	return string([]byte{c})
}

// dollar is what a variable stands for. One that is not set is empty.
func (s *shellReader) dollar(inBraces bool) (string, *Error) {
	pos := s.pos()
	switch {
	case s.peek() == '`' || s.has("$("):
		return "", s.errorf(pos, "a command's output stands here: this is read, and nothing is run; write the value itself")
	case s.has("${") && inBraces:
		return "", s.errorf(pos, "${} inside of ${} is not known: write the value itself")
	case s.has("${"):
		return s.braces(pos)
	}
	s.take()
	if name := s.name(); name != "" {
		return s.vars[name].value, nil
	}
	if strings.IndexByte("@*#?-$!0123456789", s.peek()) >= 0 && s.at < len(s.text) {
		return "", s.errorf(pos, "$%c is known to a running shell only: write the value itself", s.peek())
	}
	return "$", nil
}

// braces reads ${NAME}, ${NAME-DEFAULT} and ${NAME:-DEFAULT}.
func (s *shellReader) braces(pos Position) (string, *Error) {
	s.at += len("${")
	name := s.name()
	value, set := s.vars[name]
	if s.has(":-") {
		s.take()
		set = set && value.value != ""
	}
	fallback := ""
	if name != "" && s.peek() == '-' {
		s.take()
		var err *Error
		if fallback, err = s.word("}"); err != nil {
			return "", err
		}
	}
	if name == "" || s.peek() != '}' {
		return "", s.errorf(pos, "bad ${}: known are ${NAME} and ${NAME:-DEFAULT}")
	}
	s.take()
	if set {
		return value.value, nil
	}
	return fallback, nil
}
