//go:build amd64 || arm64

package oci

import (
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"jailtap/loader/agent"
)

// maxArgs is how many arguments a system call has at most.
const maxArgs = 6

// A box is a set of calls: those of which every argument has one of some values.
type box [maxArgs]values

// values are the values that an argument may have: those of spans, or, if masked,
// those of a comparison that is kept as it is.
type values struct {
	spans  []span
	masked *specs.LinuxSeccompArg
}

// A span is the numbers from lo to hi.
type span struct{ lo, hi uint64 }

// all are all values.
func all() []span { return []span{{0, math.MaxUint64}} }

func boxOf(args []specs.LinuxSeccompArg) (b box, err error) {
	for i := range b {
		b[i].spans = all()
	}
	seen := map[uint]bool{}
	for _, arg := range args {
		if arg.Index >= maxArgs {
			return b, fmt.Errorf("there is no argument %d", arg.Index)
		}
		if seen[arg.Index] {
			// runc takes such comparisons as alternatives, libseccomp not at all.
			return b, fmt.Errorf("argument %d is compared twice", arg.Index)
		}
		seen[arg.Index] = true
		if arg.Op == specs.OpMaskedEqual {
			b[arg.Index].masked = &arg
			continue
		}
		if b[arg.Index].spans, err = spansOf(arg); err != nil {
			return b, err
		}
	}
	return b, nil
}

// spansOf are the values for which a comparison holds.
func spansOf(arg specs.LinuxSeccompArg) ([]span, error) {
	v := arg.Value
	below, above := []span{}, []span{}
	if v > 0 {
		below = []span{{0, v - 1}}
	}
	if v < math.MaxUint64 {
		above = []span{{v + 1, math.MaxUint64}}
	}
	switch arg.Op {
	case specs.OpEqualTo:
		return []span{{v, v}}, nil
	case specs.OpNotEqual:
		return append(below, above...), nil
	case specs.OpLessThan:
		return below, nil
	case specs.OpLessEqual:
		return []span{{0, v}}, nil
	case specs.OpGreaterThan:
		return above, nil
	case specs.OpGreaterEqual:
		return []span{{v, math.MaxUint64}}, nil
	}
	return nil, fmt.Errorf("unknown operator %q", arg.Op)
}

// minus is the box without the calls for which all of args hold, in pieces: those
// for which the first does not, those for which it does and the second does not,
// and so on.
func (b box) minus(args []agent.Arg) (pieces []box) {
	for _, arg := range args {
		v := uint64(arg.Value)
		inside, outside := split(b[arg.Index].spans, v)
		if len(outside) > 0 {
			piece := b
			piece[arg.Index].spans = outside
			pieces = append(pieces, piece)
		}
		if !inside {
			return pieces
		}
		b[arg.Index].spans = []span{{v, v}}
	}
	return pieces
}

// split takes a value out of spans, and reports whether it was there.
func split(spans []span, v uint64) (inside bool, rest []span) {
	for _, s := range spans {
		if v < s.lo || v > s.hi {
			rest = append(rest, s)
			continue
		}
		inside = true
		if s.lo < v {
			rest = append(rest, span{s.lo, v - 1})
		}
		if v < s.hi {
			rest = append(rest, span{v + 1, s.hi})
		}
	}
	return inside, rest
}

// comparisons are the argument lists of rules that together are about the box's
// calls. There is one comparison of an argument in each, as libseccomp has it.
func (b box) comparisons() ([][]specs.LinuxSeccompArg, error) {
	lists := [][]specs.LinuxSeccompArg{nil}
	for i, values := range b {
		alternatives, err := values.comparisons(uint(i))
		if err != nil {
			return nil, err
		}
		if alternatives == nil {
			continue
		}
		var longer [][]specs.LinuxSeccompArg
		for _, list := range lists {
			for _, arg := range alternatives {
				longer = append(longer, append(slices.Clone(list), arg))
			}
		}
		lists = longer
	}
	return lists, nil
}

// comparisons are those of which one has to hold; nil: none has to.
func (v values) comparisons(index uint) ([]specs.LinuxSeccompArg, error) {
	if v.masked != nil {
		if !slices.Equal(v.spans, all()) {
			return nil, fmt.Errorf("argument %d has %s where the agent needs to know its value", index, v.masked.Op)
		}
		return []specs.LinuxSeccompArg{*v.masked}, nil
	}
	if slices.Equal(v.spans, all()) {
		return nil, nil
	}
	compare := func(op specs.LinuxSeccompOperator, value uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: value, Op: op}
	}
	if gap, ok := only(v.spans); ok {
		return []specs.LinuxSeccompArg{compare(specs.OpNotEqual, gap)}, nil
	}
	list := []specs.LinuxSeccompArg{} // may stay empty: nothing holds then
	for _, s := range v.spans {
		switch {
		case s.lo == 0:
			list = append(list, compare(specs.OpLessEqual, s.hi))
		case s.hi == math.MaxUint64:
			list = append(list, compare(specs.OpGreaterEqual, s.lo))
		case s.hi-s.lo < mostValues:
			for value := s.lo; value <= s.hi; value++ {
				list = append(list, compare(specs.OpEqualTo, value))
			}
		default:
			return nil, fmt.Errorf("argument %d has too many values between %d and %d for a rule each", index, s.lo, s.hi)
		}
	}
	return list, nil
}

// mostValues is how many values between two others get a rule each.
const mostValues = 256

// only reports whether spans are all values but one.
func only(spans []span) (gap uint64, ok bool) {
	if len(spans) != 2 || spans[0].lo != 0 || spans[1].hi != math.MaxUint64 || spans[0].hi+2 != spans[1].lo {
		return 0, false
	}
	return spans[0].hi + 1, true
}
