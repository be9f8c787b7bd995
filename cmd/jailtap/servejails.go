package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"

	"jailtap/bpf"
	"jailtap/loader/broker"
)

// A jailsFile is what --jails names. The first jail that matches a process is
// the process's.
type jailsFile struct {
	Jails []*jailEntry `yaml:"jails"`
}

// A jailEntry is one jail of it.
type jailEntry struct {
	Name  string    `yaml:"name"`
	Match jailMatch `yaml:"match"`

	// Addresses, or those of a network namespace, or both.
	Addresses []string `yaml:"addresses"`
	Netns     string   `yaml:"netns"`

	Policy     string     `yaml:"policy"` // "": full
	VLAN       string     `yaml:"vlan"`   // "": none
	Interfaces []string   `yaml:"interfaces"`
	Limits     jailLimits `yaml:"limits"`

	fixed  []netip.Prefix
	policy bpf.Policy
	vlans  bpf.VLANs
}

// A jailMatch says which processes are of a jail: those for which all holds that
// it has.
type jailMatch struct {
	Cgroup string  `yaml:"cgroup"` // this one and those below, as a path below the mount
	UID    *uint32 `yaml:"uid"`
	Netns  string  `yaml:"netns"` // name or path
}

// jailLimits are broker.Limits.
type jailLimits struct {
	Captives     int     `yaml:"captives"`
	Ring         int     `yaml:"ring"`
	Instructions int     `yaml:"instructions"`
	Rate         float64 `yaml:"rate"`
}

func readJails(name string) (*jailsFile, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	f := &jailsFile{}
	err = yaml.NewDecoder(file, yaml.Strict()).Decode(f)
	if errors.Is(err, io.EOF) || err == nil && len(f.Jails) == 0 {
		return nil, fmt.Errorf("%s has no jails", name)
	}
	if err != nil {
		return nil, placed(name, err)
	}
	names := map[string]bool{}
	for i, j := range f.Jails {
		if j == nil {
			return nil, fmt.Errorf("%s: jail %d is empty", name, i+1)
		}
		if err := j.check(); err != nil {
			return nil, fmt.Errorf("%s: jail %d, %q: %w", name, i+1, j.Name, err)
		}
		if names[j.Name] {
			return nil, fmt.Errorf("%s: there are two jails %q", name, j.Name)
		}
		names[j.Name] = true
	}
	return f, nil
}

// placed says where in a file an error is: NAME:LINE:COLUMN.
func placed(name string, err error) error {
	if e, ok := errors.AsType[yaml.Error](err); ok {
		at := e.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", name, at.Line, at.Column, e.GetMessage())
	}
	return fmt.Errorf("%s: %w", name, err)
}

// jailName is what a jail may be called: what is good in a log and in a label.
var jailName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// check checks an entry and reads the texts in it.
func (j *jailEntry) check() (err error) {
	switch {
	case !jailName.MatchString(j.Name) || len(j.Name) > broker.MaxName:
		return fmt.Errorf("a name has up to %d letters, digits, and . _ - between them", broker.MaxName)
	case j.Match == jailMatch{}:
		return errors.New("match says by what to know its processes: cgroup, uid, netns")
	case j.Match.Cgroup != "" && !strings.HasPrefix(j.Match.Cgroup, "/"):
		return fmt.Errorf("bad cgroup %q: want a path that begins with /, below where cgroup2 is mounted", j.Match.Cgroup)
	case len(j.Addresses) == 0 && j.Netns == "":
		return errors.New("no scope: addresses or netns say whose packets may be seen")
	case j.Limits.Captives < 0 || j.Limits.Ring < 0 || j.Limits.Instructions < 0 || j.Limits.Rate < 0:
		return errors.New("limits are not negative")
	}
	for _, text := range j.Addresses {
		p, err := bpf.ParseAddr(text)
		if err != nil {
			return err
		}
		j.fixed = append(j.fixed, p)
	}
	if j.policy, err = bpf.ParsePolicy(cmp.Or(j.Policy, bpf.Full.String())); err != nil {
		return err
	}
	j.vlans, err = bpf.ParseVLANs(j.VLAN)
	return err
}

func (l jailLimits) broker() broker.Limits {
	return broker.Limits{Captives: l.Captives, RingBytes: l.Ring, Instructions: l.Instructions, Rate: l.Rate}
}
