package jailconf

import (
	"slices"
	"strconv"
	"strings"
)

// resolve makes jails out of blocks: it gives them the parameters of the
// wildcard blocks, in the order of the file, and substitutes variables.
func (p *parser) resolve() (*Config, error) {
	c := &Config{}
	r := &resolver{parser: p, left: maxExpanded}
	for i, b := range p.blocks {
		b.at = i
		if isWild(b.name) {
			r.wild = append(r.wild, b)
		}
	}
	for _, group := range p.grouped() {
		c.Jails = append(c.Jails, r.jail(group))
		if len(p.errs) >= maxErrors {
			break
		}
	}
	if err := p.errs.sorted(); err != nil {
		return nil, err
	}
	return c, nil
}

// grouped are the blocks of each jail. FreeBSD has two jails of one name then,
// of which it can start one; here the second block adds to the first.
func (p *parser) grouped() [][]*block {
	var groups [][]*block
	index := map[string]int{}
	for _, b := range p.blocks {
		if isWild(b.name) {
			continue
		}
		i, ok := index[b.name]
		if !ok {
			i = len(groups)
			index[b.name] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], b)
	}
	return groups
}

// isWild reports whether a name has a * for a part.
func isWild(name string) bool { return strings.Contains(name, "*") }

// matches reports whether a wildcard fits a name: a * stands for one part, and
// at the end for one or more (wild_jail_match of FreeBSD's jail(8)).
func matches(wild, name string) bool {
	w, n := strings.Split(wild, "."), strings.Split(name, ".")
	for i, part := range w {
		last := i == len(w)-1
		switch {
		case i >= len(n):
			return false
		case part == "*" && last:
			return true
		case part != "*" && part != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}

// A resolver substitutes variables.
type resolver struct {
	*parser
	left  int // bytes that all values may still have
	wild  []*block
	depth int // variables in variables
}

// A collected jail has its parameters in a list and by name.
type collected struct {
	name   string
	params []*collectedParam
	index  map[string]*collectedParam // by the name without "no"
}

type collectedParam struct {
	rawParam
	owned    bool // values is a list of this jail's own, not a block's
	state    resolution
	resolved []string
}

type resolution byte

const (
	untouched resolution = iota
	underway
	done
	failed
)

// jail makes one jail out of its blocks and the wildcards that match it.
func (r *resolver) jail(group []*block) Jail {
	j := &collected{name: group[0].name, index: map[string]*collectedParam{}}
	r.add(j, implied(group[0]))
	for _, b := range r.inOrder(group) {
		for _, param := range b.params {
			r.add(j, param)
		}
	}
	result := Jail{Name: j.name, Pos: group[0].pos}
	for _, param := range j.params {
		r.substitute(j, param)
		if !param.variable {
			result.Params = append(result.Params, Param{Name: param.name, Values: param.resolved, Pos: param.pos})
		}
	}
	return result
}

// inOrder is a jail's own blocks and the wildcards that match it, in the order of
// the file.
func (r *resolver) inOrder(own []*block) []*block {
	name := own[0].name
	var list []*block
	for _, b := range r.wild {
		for len(own) > 0 && own[0].at < b.at {
			list, own = append(list, own[0]), own[1:]
		}
		if r.spend(b.pos, 0) && matches(b.name, name) {
			list = append(list, b)
		}
	}
	return append(list, own...)
}

// implied is the parameter that a jail's name stands for: a number is a jid.
func implied(b *block) rawParam {
	name := "name"
	if n, err := strconv.Atoi(b.name); err == nil && n != 0 {
		name = "jid"
	}
	return rawParam{name: name, pos: b.pos, values: []rawValue{{{kind: tokenText, text: b.name, pos: b.pos}}}}
}

// add sets or appends a parameter. FreeBSD keeps the order in which they first
// came.
func (r *resolver) add(j *collected, param rawParam) {
	if !r.spend(param.pos, len(param.name)+16*len(param.values)) {
		return
	}
	old, ok := j.index[positive(param.name)]
	switch {
	case !ok && len(j.params) == maxParams:
		r.failAt(param.pos, param.name, "jail %s has more than %d parameters, which no jail has", j.name, maxParams)
	case !ok:
		c := &collectedParam{rawParam: param}
		j.params = append(j.params, c)
		j.index[positive(param.name)] = c
	case old.variable != param.variable:
		r.failAt(param.pos, param.name, "jail %s: the variable $%s has the name of a parameter: rename it", j.name, param.name)
	case old.name == "name" && isText(param.values, j.name): // as said already
	case old.name == "name" || old.name == "jid":
		r.failAt(param.pos, param.name, "jail %s: %s is what stands before the {, and cannot be set again", j.name, param.name)
	default:
		old.merge(param)
	}
}

// isText reports whether values are one, which is a text without variables.
func isText(values []rawValue, text string) bool {
	if len(values) != 1 {
		return false
	}
	var all strings.Builder
	for _, piece := range values[0] {
		if piece.kind == tokenVariable {
			return false
		}
		all.WriteString(piece.text)
	}
	return all.String() == text
}

func (c *collectedParam) merge(param rawParam) {
	c.name, c.pos = param.name, param.pos
	if !param.appends || len(param.values) == 0 {
		c.values, c.owned = param.values, false
		return
	}
	if !c.owned { // the blocks' lists are shared between jails
		c.values, c.owned = slices.Clone(c.values), true
	}
	c.values = append(c.values, param.values...)
}

// spend takes from what all values together may have.
func (r *resolver) spend(pos Position, n int) bool {
	if r.left < 0 {
		return false
	}
	if r.left -= n + 1; r.left < 0 {
		r.failAt(pos, "", "the values come to more than %d MiB: do variables contain each other?", maxExpanded>>20)
		return false
	}
	return true
}

// substitute makes a parameter's values, and those of the variables that they
// are made of first.
func (r *resolver) substitute(j *collected, param *collectedParam) {
	if param.state != untouched {
		return
	}
	param.state = underway
	for _, value := range param.values {
		texts, ok := r.value(j, param, value)
		if !ok {
			param.state, param.resolved = failed, nil
			return
		}
		param.resolved = append(param.resolved, texts...)
	}
	param.state = done
}

// value puts the pieces of a string together. One that is a variable and
// nothing else has all of its values.
func (r *resolver) value(j *collected, param *collectedParam, value rawValue) ([]string, bool) {
	var b strings.Builder
	for _, piece := range value {
		text := piece.text
		if piece.kind == tokenVariable {
			values, ok := r.variable(j, param, piece)
			if !ok {
				return nil, false
			}
			if len(values) > 1 && len(value) == 1 {
				return values, r.spend(piece.pos, 16*len(values))
			}
			if len(values) > 1 {
				r.failAt(piece.pos, piece.raw, "jail %s: %s: %s has %d values, which cannot stand inside a string", j.name, param.name, piece.raw, len(values))
				return nil, false
			}
			text = values[0]
		}
		if !r.spend(piece.pos, len(text)) {
			return nil, false
		}
		b.WriteString(text)
	}
	return []string{b.String()}, true
}

// variable is what a variable or a parameter stands for: one value at least.
func (r *resolver) variable(j *collected, param *collectedParam, piece token) ([]string, bool) {
	name := piece.text
	v := j.index[positive(name)]
	if v == nil && name == "name" {
		return []string{j.name}, true // of a jail whose name is a number
	}
	if v == nil || v.name != name || len(v.values) == 0 {
		r.failAt(piece.pos, piece.raw, "jail %s: %s: %s is not set: want $%s = VALUE; or, for a dollar sign, \\$", j.name, param.name, piece.raw, name)
		return nil, false
	}
	if v.state == underway {
		r.failAt(piece.pos, piece.raw, "jail %s: %s contains itself", j.name, piece.raw)
		return nil, false
	}
	if r.depth++; r.depth > maxDepth {
		r.failAt(piece.pos, piece.raw, "jail %s: %s: variables are nested deeper than %d", j.name, param.name, maxDepth)
		v.state = failed
	}
	r.substitute(j, v)
	r.depth--
	return v.resolved, v.state == done && len(v.resolved) > 0
}
