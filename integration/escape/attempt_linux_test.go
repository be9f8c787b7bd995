//go:build amd64 || arm64

package escape

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A setting is how an attacker lives, and where its captive sockets come from.
type setting string

const (
	run        setting = "run"     // under jailtap run
	held       setting = "held"    // from a Warden, without a seccomp filter
	settled    setting = "settled" // as held, and bound to the first interface for good
	fromBroker setting = "broker"  // from jailtap serve, without a seccomp filter
	passed     setting = "passed"  // from a process under jailtap run, without a filter of its own
	free       setting = "free"    // root with plain packet sockets: the control
)

// both are the settings for attempts that need nothing but a captive socket,
// all those for attempts that may meet something else if it is bound.
var (
	both = []setting{run, held}
	all  = []setting{run, held, settled}
)

// An attempt tries one way out.
type attempt struct {
	name, how string
	in        []setting
	control   bool // root with a plain socket gets through, and is noticed

	// do tries, and returns what it met. nil is that nothing was in the way.
	do func(a *attacker) error

	needs    func(testing.TB) bool          // whether the machine has what it takes; nil: any has
	open     []setting                      // where it succeeds, as docs/SECURITY.md says
	policy   string                         // of the scope; "" is full
	terminal bool                           // the operator's terminal is the attacker's, too
	crafted  func(id func() mac) [][]byte   // frames for the socket; see craft
	outside  func(w *world, p *prey) string // a harm that only the outside can see; "" is none
}

// A group is the attempts of one theme.
type group struct {
	name     string
	attempts []attempt
	alone    bool // attempts would get in each other's way
}

// groups are all there are, in the order of the table.
var groups = []group{
	{"opening", opening, false},
	{"filter", filters, false},
	{"options", options, false},
	{"sending", sending, false},
	{"binding", binding, false},
	{"fanout", fanout, true},
	{"passing on", passing, false},
	{"racing", racing, false},
	{"system calls", calls, true},
	{"the agent", againstAgent, true},
	{"the broker", againstBroker, true},
	{"packets", packets, false},
}

func find(name string) *attempt {
	for _, g := range groups {
		if i := slices.IndexFunc(g.attempts, func(t attempt) bool { return t.name == name }); i >= 0 {
			return &g.attempts[i]
		}
	}
	return nil
}

// A tally counts what calls met.
type tally struct {
	names  []string
	counts map[string]int
}

func (t *tally) add(err error) {
	name := "no error"
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		name = unix.ErrnoName(errno)
	} else if err != nil {
		name = err.Error()
	}
	t.count(name, 1)
}

func (t *tally) count(name string, n int) {
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	if t.counts[name] == 0 {
		t.names = append(t.names, name)
	}
	t.counts[name] += n
}

// met is the tally as what an attempt met.
func (t *tally) met() error {
	var parts []string
	for _, name := range t.names {
		part := name
		if n := t.counts[name]; n > 1 {
			part = fmt.Sprintf("%d× %s", n, name)
		}
		parts = append(parts, part)
	}
	return errors.New(strings.Join(parts, ", "))
}

// refused is what calls met of which none may succeed: nil if one did.
func (t *tally) refused() error {
	if t.counts["no error"] > 0 {
		return nil
	}
	return t.met()
}

// then is what two steps met, one after the other; nil if the last one met
// nothing.
func then(first, last error) error {
	if first == nil || last == nil {
		return last
	}
	return fmt.Errorf("%w; %w", first, last)
}

// said puts a name in front of what was met, and makes an error of success.
func said(what string, err error) error {
	var t tally
	t.add(err)
	return fmt.Errorf("%s %w", what, t.met())
}
