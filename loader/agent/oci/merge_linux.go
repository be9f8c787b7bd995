//go:build amd64 || arm64

package oci

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"jailtap/loader/agent"
)

// native is what the specification calls the machine's architecture.
var native = map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[runtime.GOARCH]

func merge(p *Profile) error {
	if p.ListenerPath != "" || p.DefaultAction == specs.ActNotify {
		return fmt.Errorf("the profile has a listener already, %q", p.ListenerPath)
	}
	var calls []Syscall
	for _, r := range agent.Rules() {
		calls = append(calls, notify(r))
	}
	for i, c := range p.Syscalls {
		rest, err := aside(c)
		if err != nil {
			return fmt.Errorf("rule %d of the profile: %w", i+1, err)
		}
		calls = append(calls, rest...)
	}
	p.Syscalls = calls
	p.Architectures, p.ArchMap = []specs.Arch{native}, nil
	return nil
}

// notify is a rule of ours. It compares all 64 bits of an argument, as all but
// MASKED_EQ do; of a packet socket that is asked for with others set the agent
// does not hear, and the kernel refuses it.
func notify(r agent.Rule) Syscall {
	c := Syscall{Names: []string{r.Name}, Action: specs.ActNotify}
	for _, arg := range r.Args {
		c.Args = append(c.Args, specs.LinuxSeccompArg{Index: arg.Index, Value: uint64(arg.Value), Op: specs.OpEqualTo})
	}
	return c
}

// aside is a rule without what ours are about.
func aside(c Syscall) ([]Syscall, error) {
	if c.Name != "" {
		c.Names, c.Name = append(c.Names, c.Name), ""
	}
	switch {
	case len(c.Names) == 0:
		return nil, fmt.Errorf("it names no calls")
	case c.Action == specs.ActNotify:
		return nil, fmt.Errorf("it notifies a listener of %s", c.Names[0])
	}
	ours := map[string][]agent.Rule{}
	for _, r := range agent.Rules() {
		if slices.Contains(c.Names, r.Name) {
			ours[r.Name] = append(ours[r.Name], r)
		}
	}
	var calls []Syscall
	c.Names = slices.DeleteFunc(slices.Clone(c.Names), func(name string) bool { return ours[name] != nil })
	if len(c.Names) > 0 {
		calls = append(calls, c)
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		c.Names = []string{name}
		rest, err := without(c, ours[name])
		if err != nil {
			return nil, err
		}
		calls = append(calls, rest...)
	}
	return calls, nil
}

// without is a rule about calls of one name, but for those that other rules are
// about.
func without(c Syscall, rules []agent.Rule) ([]Syscall, error) {
	whole, err := boxOf(c.Args)
	if err != nil {
		return nil, fmt.Errorf("it cannot be merged: %s: %w", c.Names[0], err)
	}
	boxes := []box{whole}
	for _, r := range rules {
		var left []box
		for _, b := range boxes {
			left = append(left, b.minus(r.Args)...)
		}
		boxes = left
	}
	var calls []Syscall
	for _, b := range boxes {
		all, err := b.comparisons()
		if err != nil {
			return nil, fmt.Errorf("it cannot be merged: %s: %w", c.Names[0], err)
		}
		for _, c.Args = range all {
			calls = append(calls, c)
		}
	}
	return calls, nil
}
