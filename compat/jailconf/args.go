package jailconf

import (
	"fmt"
	"strings"
)

// ParseArgs reads the words of a command line: NAME=VALUE, or NAME alone for a
// boolean. A value is all that is behind the =, with commas in lists, but
// command=WORD takes that and all words behind it as one command's. A name that
// comes again adds to its list, as on FreeBSD.
//
// The jail is called what name= says, or else jid=, or else it has no name.
func ParseArgs(words []string) (Jail, error) {
	j := Jail{Pos: argPosition(0)}
	for i, word := range words {
		name, value, has := strings.Cut(word, "=")
		if name = strings.TrimSuffix(name, "+"); name == "" {
			return Jail{}, &Error{Pos: argPosition(i), Token: word, Msg: fmt.Sprintf("%q is no parameter: want NAME=VALUE", word)}
		}
		p := Param{Name: name, Pos: argPosition(i)}
		if name == "command" && has {
			if p.Values = append([]string{value}, words[i+1:]...); value == "" {
				return Jail{}, p.errorf(word, "command= has no command: want command=PROGRAM ARGUMENT...")
			}
			j.set(p)
			break
		}
		if has {
			p.Values = splitArg(name, value)
		}
		j.set(p)
	}
	for _, from := range []string{"jid", "name"} {
		if name, ok := j.String(from); ok {
			j.Name = name
		}
	}
	if why := badName(j.Name); j.Name != "" && (why != "" || isWild(j.Name)) {
		p, _ := j.Get("name")
		return Jail{}, p.errorf(j.Name, "bad name %q of a jail: want letters, digits, - and _", j.Name)
	}
	return j, nil
}

func argPosition(i int) Position { return Position{File: "command line", Line: 1, Col: i + 1} }

// splitArg cuts a list at its commas. Commands are not cut.
func splitArg(name, value string) []string {
	if k := Known(name).Kind; k == Addresses || k == List && !strings.HasPrefix(name, "exec.") && name != "mount" {
		return strings.Split(value, ",")
	}
	return []string{value}
}

// set puts a parameter in, or adds to it.
func (j *Jail) set(p Param) {
	for i := range j.Params {
		old := &j.Params[i]
		if !sameParam(old.Name, p.Name) {
			continue
		}
		if p.Values != nil {
			p.Values = append(old.Values, p.Values...)
		}
		*old = p
		return
	}
	j.Params = append(j.Params, p)
}
