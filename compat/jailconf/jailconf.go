// Package jailconf reads FreeBSD's configurations of jails: jail.conf(5), the
// jail_* variables of rc.conf(5), and the words of a jail(8) command line. All
// three become the same plain data, a Config, in which variables are
// substituted, lists appended to, and the parameters of wildcard blocks given to
// the jails that they match.
//
// Nothing is run and nothing is carried out. What became of each parameter on
// Linux is in a table: see [Known] and [Config.Check].
//
// # Security considerations
//
// A configuration is root's, but may be generated. Reading one takes time and
// memory in proportion to its size and no more: what variables expand to, what
// is included, and how deep blocks nest are limited. An rc.conf is read, and
// never given to a shell; what needs one is an error.
package jailconf

import (
	"fmt"
	"slices"
	"strings"
)

// A Position is where something stands in a file. Lines and columns count from
// 1, columns in bytes. On a command line the file is "command line", the line is
// 1, and the column is the number of the word.
type Position struct {
	File string
	Line int
	Col  int
}

func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// A Config is a whole configuration.
type Config struct {
	// Jails in the order in which they are first mentioned. Wildcard blocks
	// are not among them; the jails that they match have their parameters.
	Jails []Jail

	// Rulesets are those of devfs.rules(5) that were read with it; see
	// [Jail.AllowsBPF].
	Rulesets Rulesets

	// List is what the rc.conf's jail_list names, in its order: the jails that
	// are to be started. Nil stands for all.
	List []string

	// Unowned are variables of the rc.conf that begin with jail_ and belong to
	// no jail, and that are not known for all jails either.
	Unowned []Param
}

// A Jail is a name with parameters.
type Jail struct {
	Name string // as in jls(8); with dots if it is the child of another jail
	Pos  Position

	// Params in the order in which they first came. No two are the same: the
	// last one counts. The parameter "name" is among them.
	Params []Param
}

// A Param is a parameter as it stands in the configuration: one that is off can
// be "nopersist" without a value or "persist" with the value "false". The typed
// methods of Jail know both.
type Param struct {
	Name   string
	Values []string // nil if it has none, as in "persist;"
	Pos    Position // of the name, where it was last set
}

// An Error is about one place of a configuration.
type Error struct {
	Pos   Position
	Token string // what offends, as it stands there; may be empty
	Msg   string // what is wrong with it, and what to do
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Msg }

// Errors are all that was found wrong, in the order of the files. It has an
// error at least.
type Errors []*Error

// Error has a line for each.
func (l Errors) Error() string {
	var lines []string
	for _, e := range l {
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}

// Jail finds a jail by its name.
func (c *Config) Jail(name string) (Jail, bool) {
	i := slices.IndexFunc(c.Jails, func(j Jail) bool { return j.Name == name })
	if i < 0 {
		return Jail{}, false
	}
	return c.Jails[i], true
}
