package jailconf

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Finding is a line of a report: what becomes of one parameter of one jail.
type Finding struct {
	Jail   string // empty for a variable of an rc.conf that belongs to none
	Param  string
	Values []string
	Pos    Position
	Kind   Kind
	Fate   Fate
	Reason string

	// Err is what is wrong with the value; nil if nothing is.
	Err error
}

// Wrong reports whether a jail with this parameter cannot be made.
func (f Finding) Wrong() bool { return f.Err != nil || f.Fate == Refused || f.Fate == Unknown }

// Check tells for each parameter of each jail what becomes of it on Linux, in
// the order of the configuration.
func (c *Config) Check() []Finding {
	var list []Finding
	for _, j := range c.Jails {
		list = append(list, j.check(c.Rulesets)...)
	}
	for _, p := range c.Unowned {
		v := Known(p.Name)
		list = append(list, Finding{Param: p.Name, Values: p.Values, Pos: p.Pos, Fate: v.Fate, Reason: v.Reason})
	}
	return list
}

func (j Jail) check(rules Rulesets) []Finding {
	var list []Finding
	for _, p := range j.Params {
		v, err := j.Verdict(p)
		f := Finding{Jail: j.Name, Param: p.Name, Values: p.Values, Pos: p.Pos, Kind: v.Kind, Fate: v.Fate, Reason: v.Reason, Err: err}
		if f.Err == nil {
			j.inContext(&f, v, rules)
		}
		list = append(list, f)
	}
	return list
}

// inContext is for parameters whose fate hangs on others.
func (j Jail) inContext(f *Finding, v Verdict, rules Rulesets) {
	switch v.Name {
	case "name":
		if strings.Contains(j.Name, ".") {
			f.Fate, f.Reason = Refused, "jails inside jails are not made; give it a name without dots"
		}
	case "allow.raw_sockets":
		if on, _, _ := j.Bool(v.Name); on && !j.IsVNET() {
			f.Fate, f.Reason = Refused, "raw sockets would see and send as the whole host; give the jail vnet"
		}
	case "devfs_ruleset":
		if ruleset, _ := j.String(v.Name); rules.UnhidesBPF(ruleset) {
			f.Reason = "it unhides bpf*, which is allow.bpf: " + Known("allow.bpf").Reason
		}
	}
}

// IsVNET reports whether the jail has a network stack of its own.
func (j Jail) IsVNET() bool {
	p, ok := j.Get("vnet")
	if !ok {
		return false
	}
	value, err := j.checkValue(p, Known("vnet"))
	return err == nil && value == "new"
}

// checkValue checks the values of a parameter against its kind, and returns
// them as the exceptions in the table call them.
func (j Jail) checkValue(p Param, v Verdict) (string, error) {
	text, has := p.last()
	switch v.Kind {
	case Flag:
		on, _, err := j.Bool(v.Name)
		return map[bool]string{true: "on", false: "off"}[on], err
	case Number:
		n, _, err := j.Int(v.Name)
		return strconv.Itoa(n), err
	case Choice:
		return p.choice(v)
	case Addresses:
		return "", addressErrors(j, p)
	case Text:
		if !has {
			return "", p.errorf(p.Name, "%s has no value: want %s = VALUE;", p.Name, p.Name)
		}
	}
	return text, nil
}

// addressErrors are those of one family.
func addressErrors(j Jail, p Param) error {
	_, err := Jail{Params: []Param{p}}.Addresses()
	return err
}

// choice is the value of a parameter that jail(8) knows words for, or takes as
// a boolean: on is "new", and off "inherit" (jailsys in libjail).
func (p Param) choice(v Verdict) (string, error) {
	text, _ := p.last()
	if slices.Contains(v.Values, text) && p.Name == v.Name {
		return text, nil
	}
	on, err := p.isOn()
	if err != nil {
		return "", p.errorf(text, "%s: unknown value %q: want %s", p.Name, text, strings.Join(v.Values, ", "))
	}
	if on == (p.Name == v.Name) {
		return "new", nil
	}
	return "inherit", nil
}

// suggestion names the parameter that was perhaps meant.
func suggestion(name string) string {
	best, least := "", 3
	for _, known := range slices.Sorted(maps.Keys(table)) {
		if d := distance(name, known); d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is that of Levenshtein, or 3 if it is not less.
func distance(a, b string) int {
	if max(len(a)-len(b), len(b)-len(a)) >= 3 {
		return 3
	}
	row := make([]int, len(b)+1)
	for i := range row {
		row[i] = i
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for k := range len(b) {
			next := min(row[k], row[k+1]) + 1
			if a[i] == b[k] {
				next = min(next, diagonal)
			} else {
				next = min(next, diagonal+1)
			}
			diagonal, row[k+1] = row[k+1], next
		}
	}
	return min(row[len(b)], 3)
}

// sorted puts errors in the order of the files' places.
func (l Errors) sorted() error {
	if len(l) == 0 {
		return nil
	}
	slices.SortStableFunc(l, func(a, b *Error) int {
		if a.Pos.File != b.Pos.File {
			return 0
		}
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return l
}
