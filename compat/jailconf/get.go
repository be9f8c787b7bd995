package jailconf

import (
	"fmt"
	"strconv"
	"strings"
)

// Get finds a parameter, also if it stands there as NOname: exec.clean finds
// exec.noclean.
func (j Jail) Get(name string) (Param, bool) {
	for _, p := range j.Params {
		if sameParam(p.Name, name) {
			return p, true
		}
	}
	return Param{}, false
}

// Bool is the value of a boolean parameter, and whether the configuration has
// it. It is on with no value, or with the last one true or a number but 0; with
// "no" in front of the last part of its name it is the opposite.
func (j Jail) Bool(name string) (value, set bool, err error) {
	p, ok := j.Get(name)
	if !ok {
		return false, false, nil
	}
	value, err = p.isOn()
	return value != (p.Name != name), true, err
}

// isOn is what the values alone say.
func (p Param) isOn() (bool, error) {
	text, ok := p.last()
	if !ok {
		return true, nil
	}
	switch strings.ToLower(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return false, p.errorf(text, "%s: %q is not a boolean: want true or false (or is there a ';' missing before it?)", p.Name, text)
	}
	return n != 0, nil
}

// Int is the value of a parameter that is a decimal number, and whether the
// configuration has it.
func (j Jail) Int(name string) (value int, set bool, err error) {
	p, ok := j.Get(name)
	if !ok {
		return 0, false, nil
	}
	text, _ := p.last()
	value, convErr := strconv.Atoi(text)
	if convErr != nil {
		return 0, true, p.errorf(text, "%s: %q is not a number: want decimal digits", name, text)
	}
	return value, true, nil
}

// String is the value of a parameter, the last one if there are several, and
// whether the configuration has it.
func (j Jail) String(name string) (value string, set bool) {
	p, ok := j.Get(name)
	if !ok {
		return "", false
	}
	return p.last()
}

// Strings are the values of a parameter: nil if the configuration has none.
// Empty ones, which are how jail.conf(5) clears a list, are left out.
func (j Jail) Strings(name string) []string {
	p, _ := j.Get(name)
	var list []string
	for _, v := range p.Values {
		if v != "" {
			list = append(list, v)
		}
	}
	return list
}

// last is the value of a parameter that has one.
func (p Param) last() (string, bool) {
	if len(p.Values) == 0 {
		return "", false
	}
	return p.Values[len(p.Values)-1], true
}

func (p Param) errorf(token, format string, args ...any) *Error {
	return &Error{Pos: p.Pos, Token: token, Msg: fmt.Sprintf(format, args...)}
}

// sameParam reports whether two names are of one parameter: they are equal but
// for a "no" in front of the last part (equalopts of FreeBSD's jail(8)).
func sameParam(a, b string) bool {
	return a == b || positive(a) == b || positive(b) == a
}

// positive is a name without the "no" in front of its last part.
func positive(name string) string {
	i := strings.LastIndexByte(name, '.') + 1
	if rest, ok := strings.CutPrefix(name[i:], "no"); ok && rest != "" {
		return name[:i] + rest
	}
	return name
}
