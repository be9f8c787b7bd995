package jailconf

import (
	"io"
	"path"
	"strconv"
	"strings"
)

// Rulesets are those of a devfs.rules(5), by number.
type Rulesets map[int]Ruleset

// A Ruleset is what decides which device nodes a jail sees.
type Ruleset struct {
	Name  string
	Rules []string // the lines, without "add"
}

// firstOwn is the number of the first ruleset that is not FreeBSD's: 1 to 5
// are those of /etc/defaults/devfs.rules, which never unhide bpf.
const firstOwn = 6

// ParseRulesets reads a devfs.rules(5).
func ParseRulesets(name string, r io.Reader) (Rulesets, error) {
	text, err := readAll(name, r)
	if err != nil {
		return nil, err
	}
	var errs Errors
	sets := Rulesets{}
	current := 0
	line := 0
	for s := range strings.Lines(text) {
		line++
		s, _, _ = strings.Cut(s, "#")
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if head, ok := strings.CutPrefix(s, "["); ok {
			title, number, _ := strings.Cut(strings.TrimSuffix(head, "]"), "=")
			n, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil || n <= 0 || !strings.HasSuffix(s, "]") {
				errs = append(errs, &Error{Position{name, line, 1}, s, "bad ruleset " + strconv.Quote(s) + ": want [NAME=NUMBER]"})
			}
			current = n
			sets[n] = Ruleset{Name: strings.TrimSpace(title)}
			continue
		}
		set := sets[current]
		set.Rules = append(set.Rules, strings.TrimSpace(strings.TrimPrefix(s, "add ")))
		sets[current] = set
	}
	if errs != nil {
		return nil, errs
	}
	return sets, nil
}

// UnhidesBPF reports whether a ruleset of the administrator's own, by number or
// name, ends with /dev/bpf visible: the last rule about it counts, and rules
// may include other rulesets.
func (s Rulesets) UnhidesBPF(ruleset string) bool {
	n, ok := s.find(ruleset)
	return ok && n >= firstOwn && s.bpfVisible(n, map[int]bool{}, false)
}

func (s Rulesets) find(ruleset string) (int, bool) {
	if n, err := strconv.Atoi(ruleset); err == nil {
		_, ok := s[n]
		return n, ok
	}
	for n, set := range s {
		if set.Name == strings.TrimPrefix(ruleset, "$") {
			return n, true
		}
	}
	return 0, false
}

// bpfVisible applies the rules of a ruleset to /dev/bpf.
func (s Rulesets) bpfVisible(n int, seen map[int]bool, visible bool) bool {
	if seen[n] {
		return visible
	}
	seen[n] = true
	for _, rule := range s[n].Rules {
		words := strings.Fields(rule)
		switch {
		case len(words) == 2 && words[0] == "include":
			if m, ok := s.find(words[1]); ok {
				visible = s.bpfVisible(m, seen, visible)
			}
		case fitsBPF(words):
			visible = isUnhide(words, visible)
		}
	}
	return visible
}

// fitsBPF reports whether a rule is about bpf nodes: it has no condition, or
// one on the path that fits. Those on the type do not, since bpf's is none.
func fitsBPF(words []string) bool {
	for i, word := range words {
		switch word {
		case "type":
			return false
		case "path":
			if i+1 == len(words) {
				return false
			}
			pattern := strings.Trim(words[i+1], `'"`)
			one, _ := path.Match(pattern, "bpf")
			another, _ := path.Match(pattern, "bpf0")
			return one || another
		}
	}
	return true
}

func isUnhide(words []string, before bool) bool {
	for _, word := range words {
		switch word {
		case "hide":
			before = false
		case "unhide":
			before = true
		}
	}
	return before
}

// AllowsBPF reports whether a jail may capture its own packets: by allow.bpf, or
// by a devfs_ruleset of the administrator's own that unhides bpf*. One that is
// not known unhides nothing.
func (j Jail) AllowsBPF(rules Rulesets) (bool, error) {
	on, set, err := j.Bool("allow.bpf")
	if err != nil || set {
		return on, err
	}
	ruleset, _ := j.String("devfs_ruleset")
	return rules.UnhidesBPF(ruleset), nil
}
