package jailconf

import (
	"fmt"
	"slices"
	"strings"
)

// Order is the jails of these names, and those that they depend on, in an order
// in which they can be started: each behind those that it depends on, and else
// as named. No names, or the name *, stand for all. Stopping is the other way
// round. That jails depend on each other in a circle is an error.
func (c *Config) Order(names []string) ([]Jail, error) {
	o := &ordering{config: c, jails: map[string]Jail{}, state: map[string]resolution{}}
	for _, j := range c.Jails {
		o.jails[j.Name] = j
	}
	if len(names) == 0 || slices.Contains(names, "*") {
		names = nil
		for _, j := range c.Jails {
			names = append(names, j.Name)
		}
	}
	for _, name := range names {
		if _, ok := o.jails[name]; !ok {
			return nil, fmt.Errorf("unknown jail %q: %s", name, c.known())
		}
		if err := o.visit(name); err != nil {
			return nil, err
		}
	}
	return o.list, nil
}

// known says which jails there are.
func (c *Config) known() string {
	if len(c.Jails) == 0 {
		return "the configuration has none"
	}
	var names []string
	for _, j := range c.Jails[:min(len(c.Jails), 20)] {
		names = append(names, j.Name)
	}
	if len(c.Jails) > len(names) {
		names = append(names, "and more")
	}
	return "the configuration has " + strings.Join(names, ", ")
}

// An ordering goes through the jails, depth first.
type ordering struct {
	config *Config
	jails  map[string]Jail
	state  map[string]resolution
	chain  []string // the jails on the way to where it is
	list   []Jail
}

func (o *ordering) visit(name string) error {
	if o.state[name] == done {
		return nil
	}
	j := o.jails[name]
	o.state[name] = underway
	o.chain = append(o.chain, name)
	for _, needed := range j.Strings("depend") {
		if err := o.check(j, needed); err != nil {
			return err
		}
		if err := o.visit(needed); err != nil {
			return err
		}
	}
	o.chain = o.chain[:len(o.chain)-1]
	o.state[name] = done
	o.list = append(o.list, j)
	return nil
}

// check is about one dependence.
func (o *ordering) check(j Jail, needed string) error {
	p, _ := j.Get("depend")
	if _, ok := o.jails[needed]; !ok {
		return p.errorf(needed, "jail %s depends on %q, which is unknown: %s", j.Name, needed, o.config.known())
	}
	if o.state[needed] == underway {
		from := slices.Index(o.chain, needed)
		return p.errorf(needed, "jails depend on each other in a circle: %s", strings.Join(append(slices.Clone(o.chain[from:]), needed), " -> "))
	}
	return nil
}
