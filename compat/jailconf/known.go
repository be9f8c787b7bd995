package jailconf

import "strings"

// A Fate is what becomes of a parameter on Linux.
type Fate string

const (
	// CarriedOut: it does what it does on FreeBSD, or what comes closest.
	CarriedOut Fate = "carried out"
	// Refused: a jail that has it is not made, since it would lack something
	// that it counts on, or would be less confined than it should be.
	Refused Fate = "refused"
	// NoEffect: it changes nothing, and the jail can do without.
	NoEffect Fate = "no effect"
	// Unknown: neither FreeBSD's jail(8) nor jailtap has such a parameter.
	Unknown Fate = "unknown"
)

// A Kind is what values a parameter has.
type Kind string

const (
	Flag      Kind = "boolean"   // on or off: Jail.Bool
	Number    Kind = "number"    // Jail.Int
	Text      Kind = "string"    // Jail.String
	List      Kind = "list"      // Jail.Strings
	Addresses Kind = "addresses" // Jail.Addresses
	Choice    Kind = "choice"    // one of Verdict.Values: Jail.String
)

// A Verdict is what is known of a parameter.
type Verdict struct {
	Name   string // without "no"
	Kind   Kind
	Fate   Fate
	Values []string // of a Choice
	Reason string   // why it is refused or has no effect, or how it is carried out

	// but is what becomes of certain values, where that differs.
	but map[string]exception
}

// An exception is a value's own fate. The values of a Flag are "on" and "off".
type exception struct {
	fate   Fate
	reason string
}

// Known tells what becomes of a parameter, whose name may have a "no" in front
// of its last part. Some depend on their values, too: [Jail.Verdict] knows.
func Known(name string) Verdict {
	for _, n := range []string{name, positive(name)} {
		if v, ok := table[n]; ok && (n == name || v.Kind == Flag || v.Kind == Choice) {
			v.Name = n
			return v
		}
	}
	if strings.HasPrefix(name, "jail_") {
		return Verdict{Name: name, Fate: Unknown, Reason: "rc.conf(5) has no such variable for a jail, or it has none here: is jail_list right?"}
	}
	return Verdict{Name: name, Fate: Unknown, Reason: "jail(8) has no such parameter" + suggestion(name)}
}

// Verdict tells what becomes of a parameter of this jail, with its value. A
// value that makes no sense is an error.
func (j Jail) Verdict(p Param) (Verdict, error) {
	v := Known(p.Name)
	value, err := j.checkValue(p, v)
	if err != nil {
		return v, err
	}
	if e, ok := v.but[value]; ok {
		v.Fate, v.Reason = e.fate, e.reason
	}
	return v, nil
}
