package bpf

import (
	"fmt"
	"slices"

	xbpf "golang.org/x/net/bpf"
)

// An UnprovedError says where a program may accept a frame without having made
// sure that it is in scope.
type UnprovedError struct {
	Index  int // of the instruction, from 0
	Line   string
	Reason string
}

func (e *UnprovedError) Error() string {
	return fmt.Sprintf("not proved: instruction %s: %s", e.Line, e.Reason)
}

// Prove checks that p accepts no frame outside s, whatever p is and whoever
// made it: it shares no code with what Inject does. nil means proved; an
// *UnprovedError need not mean that p is unsafe, only that it is not of a shape
// which Prove understands.
//
// It goes through the program in order and keeps, for each instruction, what
// every way there that has not yet established the scope has in common: which
// values the fields of the frame can have that were loaded and compared, and
// how long the frame must be. Where a jump establishes the scope the way is
// done: what follows is the user's business. An instruction that may accept
// and that is reached otherwise is an error.
func Prove(p Program, s Scope, v View) error {
	_, err := prove(p, s, v)
	return err
}

// ScopeLines says which instructions of p can run before the scope is
// established; all others are the user's.
func ScopeLines(p Program, s Scope, v View) ([]bool, error) {
	reached, err := prove(p, s, v)
	lines := make([]bool, len(p))
	for i := range lines {
		lines[i] = reached[i] != nil
	}
	return lines, err
}

func prove(p Program, s Scope, v View) (reached []*knowledge, err error) {
	reached = make([]*knowledge, len(p))
	prefix, err := s.Prefix(v)
	if err != nil {
		return reached, err
	}
	if err := p.Validate(Linux); err != nil {
		if err := p.Validate(FreeBSD); err != nil {
			return reached, err
		}
	}
	pr := prover{program: p, goal: newGoal(prefix), at: reached}
	pr.goTo(0, &knowledge{values: make([]valued, 0, usualValues), aZero: true})
	for i := range p {
		if reached[i] == nil {
			continue
		}
		if reason := pr.step(i, reached[i]); reason != "" {
			return reached, &UnprovedError{i, p.Line(i), reason}
		}
	}
	return reached, nil
}

// A subject is what a test is about: the bits under mask of a load. A load of
// metadata is one of 4 bytes, whatever its size says.
type subject struct {
	load
	mask uint32
}

// knowledge is what is known of a frame at one instruction.
type knowledge struct {
	values []valued // a handful; what is not in it can have any value
	minLen uint32   // bytes that the frame has at least
	a      subject  // what A holds, if known
	aKnown bool
	aZero  bool // A is 0

	// Destinations that have been read as far as it takes to decide whether
	// they are the jail's.
	settled places

	// It is in scope if it has no tag in metadata.
	untagged bool

	next *knowledge // of those that are done with
}

// usualValues is how many values there is room for at first.
const usualValues = 8

// valued is a subject with the values that it can have, which are never changed in place.
type valued struct {
	subject
	values spans
}

// clone makes a copy, in the place of one that is done with if there is any.
func (pr *prover) clone(k *knowledge) *knowledge {
	c := pr.done
	if c == nil {
		c = &knowledge{values: make([]valued, 0, max(usualValues, len(k.values)+1))}
	} else {
		pr.done = c.next
	}
	values := append(c.values[:0], k.values...)
	*c = *k
	c.values, c.next = values, nil
	return c
}

// discard is for knowledge at whose end there is nothing more to know.
func (pr *prover) discard(k *knowledge) { k.next, pr.done = pr.done, k }

func (k *knowledge) of(s subject) spans {
	if i := k.index(s); i >= 0 {
		return k.values[i].values
	}
	return anyValue
}

func (k *knowledge) set(s subject, values spans) {
	if i := k.index(s); i >= 0 {
		k.values[i].values = values
		return
	}
	k.values = append(k.values, valued{s, values})
}

func (k *knowledge) index(s subject) int {
	return slices.IndexFunc(k.values, func(v valued) bool { return v.subject == s })
}

// join keeps what holds on both ways.
func (k *knowledge) join(o *knowledge) {
	for i := range k.values {
		v := &k.values[i]
		v.values = v.values.or(o.of(v.subject))
	}
	k.minLen = min(k.minLen, o.minLen)
	k.aKnown = k.aKnown && o.aKnown && k.a == o.a
	k.aZero = k.aZero && o.aZero
	k.untagged = k.untagged && o.untagged
	k.settled &= o.settled
}

type prover struct {
	program Program
	goal    goal
	at      []*knowledge // nil: not reached, or only with the scope established
	done    *knowledge   // that others may take the place of
}

// goTo hands knowledge on to an instruction, unless the way is done.
func (pr *prover) goTo(i int, k *knowledge) {
	switch {
	case pr.goal.holds(k):
		pr.discard(k)
	case pr.at[i] == nil:
		pr.at[i] = k
	default:
		pr.goal.settle(pr.at[i])
		pr.goal.settle(k)
		pr.at[i].join(k)
		pr.discard(k)
	}
}

// step follows instruction i, and says why it is not safe. What is known there is what it
// goes on with.
func (pr *prover) step(i int, k *knowledge) (reason string) {
	in := pr.program[i]
	switch in.Op & classMask {
	case classRet:
		if in.Op == opRetA && !k.aZero || in.Op != opRetA && in.K != 0 {
			return "it may accept a frame that is not in scope"
		}
		return ""
	case classJmp:
		pr.jump(i, in, k)
		return ""
	case classLd:
		if in.Op&modeMask == modeAbs && (in.K == adIfindex || in.K == adHatype) && !k.aZero {
			return "on Linux it returns A for a packet without a device"
		}
		k.load(in)
	case classLdx:
		k.grow(in)
	case classAlu:
		k.alu(in)
	case classMisc:
		if in.Op == opTxa {
			k.aKnown, k.aZero = false, false
		}
	}
	pr.goTo(i+1, k)
	return ""
}

// load makes A known if it is a field at a fixed place.
func (k *knowledge) load(in xbpf.RawInstruction) {
	k.aKnown = in.Op&modeMask == modeAbs
	k.aZero = in.Op&modeMask == modeImm && in.K == 0
	k.grow(in)
	if k.aKnown {
		k.a = subject{load{in.Op, in.K}, 0xffffffff}
	}
}

// grow takes into account that a load which goes on has found its bytes. Of a
// half-word that is not so: FreeBSD's receive path goes on with 0.
func (k *knowledge) grow(in xbpf.RawInstruction) {
	mode := in.Op & modeMask
	if (mode == modeAbs || mode == modeMsh) && in.Op&sizeMask != sizeH && in.K < 0x7fffffff-4 {
		k.minLen = max(k.minLen, in.K+loadWidth(in.Op))
	}
}

func (k *knowledge) alu(in xbpf.RawInstruction) {
	k.aZero = false
	if in.Op != opAnd {
		k.aKnown = false
		return
	}
	k.a.mask &= in.K
}

func (pr *prover) jump(i int, in xbpf.RawInstruction, k *knowledge) {
	if in.Op == opJa {
		pr.goTo(i+1+int(in.K), k)
		return
	}
	if yes := pr.clone(k); yes.learn(in, true) {
		pr.goTo(i+1+int(in.Jt), yes)
	} else {
		pr.discard(yes)
	}
	if k.learn(in, false) {
		pr.goTo(i+1+int(in.Jf), k)
	} else {
		pr.discard(k)
	}
}

// learn takes a jump's outcome into account; possible is false if it cannot
// come about.
func (k *knowledge) learn(in xbpf.RawInstruction, yes bool) (possible bool) {
	if !k.aKnown || in.Op&srcX != 0 {
		return true
	}
	about := k.a
	var values spans
	if in.Op == opJset { // says something of the bits under its mask
		about.mask &= in.K
		if yes {
			values = k.of(about).without(0)
		} else {
			values = k.of(about).and(0, 0)
		}
	} else {
		values = k.of(about).jump(in.Op, in.K, yes)
	}
	k.set(about, values)
	return len(values) > 0
}
