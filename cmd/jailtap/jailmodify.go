package main

import (
	"fmt"
	"slices"

	"jailtap/compat/jailconf"
	"jailtap/nsjail/jail"
)

// changeable are the parameters that jail -m changes. Others may be given if they
// are what the jail has.
var changeable = []string{"persist", "host.hostname", "ip4.addr", "ip6.addr"}

// modifyOne changes a jail that runs.
func (f *jailFlags) modifyOne(a *app, config *jailconf.Config, j jailconf.Jail) error {
	running, err := jail.System.Find(j.Name)
	if err != nil {
		return err
	}
	old := running.Spec()
	has := jailconf.Jail{Name: old.Name, Pos: j.Pos}
	for _, p := range old.Params {
		has.Params = append(has.Params, jailconf.Param{Name: p.Name, Values: p.Values, Pos: j.Pos})
	}
	merged := merge(has, j)
	for _, p := range j.Params {
		had, _ := has.Get(p.Name)
		if p.Name != "name" && !slices.Contains(changeable, jailconf.Known(p.Name).Name) && !slices.Equal(had.Values, p.Values) {
			return fmt.Errorf("%v: jail %s: %s cannot be changed while the jail runs: remove and create it (jail -rc)", p.Pos, j.Name, p.Name)
		}
	}
	spec, err := jailSpec(&jailconf.Config{Jails: []jailconf.Jail{merged}, Rulesets: config.Rulesets}, merged)
	if err != nil {
		return err
	}
	change := jail.Change{Hostname: &spec.Hostname, Persist: &spec.Persist, Params: spec.Params}
	if !slices.Equal(spec.Addresses, old.Addresses) {
		change.Addresses = &spec.Addresses
	}
	if spec.Hostname == "" {
		change.Hostname = nil
	}
	if err := jail.System.Modify(j.Name, change); err != nil {
		return err
	}
	if !f.quiet {
		fmt.Fprintf(a.stdout, "%s: modified\n", j.Name)
	}
	return nil
}

// merge is a jail with the parameters of another one in the place of its own.
func merge(j, over jailconf.Jail) jailconf.Jail {
	merged := jailconf.Jail{Name: j.Name, Pos: j.Pos}
	for _, p := range j.Params {
		if q, ok := over.Get(p.Name); ok {
			p = q
		}
		merged.Params = append(merged.Params, p)
	}
	for _, p := range over.Params {
		if _, ok := j.Get(p.Name); !ok {
			merged.Params = append(merged.Params, p)
		}
	}
	return merged
}
