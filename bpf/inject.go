package bpf

import (
	"fmt"
	"math"
)

// Inject puts p in front of user, which may be any valid program (an empty one
// keeps everything): the result gives user's verdict on frames in scope, and 0
// on all others. user finds A, X and M[] as at the start of a program.
//
// Where p's tests decide what user would ask, it is not asked again. The
// result may be longer than a system takes; see Compile.
func Inject(p Prefix, user Program) Program {
	return p.inject(user, math.MaxInt)
}

// inject is Inject for programs of at most so many instructions, if it can be.
func (p Prefix) inject(user Program, limit int) Program {
	entry := user.start().graph()
	if entry.keeps() && p.tight() {
		return emit(p.graph(entry, ret(0)), nil)
	}
	const short = 64
	ways := []*block{entry}
	if p.view.Live {
		ways = []*block{entry.apartPlainIPv4(), entry}
	}
	var plain Program // takes time to make, and the short ones need not be compared with it
	for _, way := range ways {
		fast, ok := specialize(p.graph(way, ret(0)))
		if !ok {
			continue
		}
		program := emit(fast, nil)
		if len(program) <= min(short, limit) {
			return program
		}
		if plain == nil {
			plain = p.joinPlainly(user)
		}
		// Copies for different paths may make it longer, which is a fair price
		// only within reason.
		if len(program) <= 2*len(plain)+short && len(program) <= max(limit, len(plain)) {
			return program
		}
	}
	if plain == nil {
		plain = p.joinPlainly(user)
	}
	return plain
}

// keeps reports whether b does nothing but keep the frame.
func (b *block) keeps() bool { return len(b.body) == 0 && b.last.Op == opRetK && b.last.K != 0 }

// tight reports whether the prefix asks nothing that it knows: then specialize, most of the
// time that a program takes to be made, has nothing to do where the user's does not ask.
func (p Prefix) tight() bool {
	return p.view.Live && p.layout.hasEtherType() && p.scope.Policy != ClassicHost && p.scope.VLANs.None()
}

// joinPlainly puts the program as it is behind the prefix.
func (p Prefix) joinPlainly(user Program) Program {
	return emit(p.graph(&block{tail: true}, ret(0)), user.start())
}

// start is the program with A as at its start, which a prefix leaves with what
// it loaded last. No prefix touches X and M[].
func (p Program) start() Program {
	if len(p) == 0 {
		return Program{ins(opRetK, KeepAll)}
	}
	entry := p.graph()
	if entry.liveness()[entry]&regA == 0 {
		return p
	}
	return append(Program{ins(opLdImm, 0)}, p...)
}

// A TooLongError says that a scope and a user program together are longer than
// a system takes.
type TooLongError struct {
	Dialect Dialect
	Insns   int // of the program
	Prefix  int // of the scope alone
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("the filter is too long: %d instructions, %d of them for the scope; %v takes at most %d",
		e.Insns, e.Prefix, e.Dialect, e.Dialect.MaxInstructions())
}

// A TooManyAddressesError says that a scope has more addresses than fit into a
// classic program together with the user's.
type TooManyAddressesError struct {
	Dialect Dialect
	Addrs   int // in the scope
	Fit     int // of them, the first so many would fit
}

func (e *TooManyAddressesError) Error() string {
	return fmt.Sprintf("too many addresses for a classic program: %d of %d fit (%v takes at most %d instructions)",
		e.Fit, e.Addrs, e.Dialect, e.Dialect.MaxInstructions())
}

// Compile makes the program to attach: user, which means the frame as a
// capture file will hold it, runs only on frames of scope s. The program is
// validated for d and proved.
//
// Errors: *ProgramError (user), *TooLongError, *TooManyAddressesError, and
// ErrNotLive wrapped.
func Compile(s Scope, v View, d Dialect, user Program) (Program, error) {
	program, err := CompileUnproved(s, v, d, user)
	if err != nil {
		return nil, err
	}
	if err := Prove(program, s, v); err != nil {
		return nil, internal(err)
	}
	return program, nil
}

func internal(err error) error { return fmt.Errorf("internal error, nothing is attached: %w", err) }

// CompileUnproved is Compile for callers that call Prove themselves, on what they
// attach.
func CompileUnproved(s Scope, v View, d Dialect, user Program) (Program, error) {
	prefix, err := s.Prefix(v)
	if err != nil {
		return nil, err
	}
	if len(user) > 0 {
		if err := user.Validate(d); err != nil {
			return nil, err
		}
	}
	live, err := Live(user, v, s.VLANs)
	if err != nil {
		return nil, err
	}
	program, err := prefix.within(d, live)
	if err != nil {
		return nil, err
	}
	if err := program.Validate(d); err != nil {
		return nil, internal(err)
	}
	return program, nil
}

// within injects with regard to the longest program that d takes.
func (p Prefix) within(d Dialect, user Program) (Program, error) {
	limit := d.MaxInstructions()
	if program, ok := p.fits(user, limit); ok {
		return program, nil
	}
	none := p.first(0)
	if program, ok := none.fits(user, limit); !ok {
		return nil, &TooLongError{d, len(program), len(none.inject(nil, limit))}
	}
	fit, tooMany := 0, len(p.scope.Addrs)
	for tooMany-fit > 1 {
		n := (fit + tooMany) / 2
		if _, ok := p.first(n).fits(user, limit); ok {
			fit = n
		} else {
			tooMany = n
		}
	}
	return nil, &TooManyAddressesError{d, len(p.scope.Addrs), fit}
}

// fits injects if the result has room.
func (p Prefix) fits(user Program, limit int) (_ Program, ok bool) {
	if len(p.v4)+len(p.v6) > limit { // no need to try
		return nil, false
	}
	program := p.inject(user, limit)
	return program, len(program) <= limit
}

// first is p for the first n addresses of its scope.
func (p Prefix) first(n int) Prefix {
	p.scope.Addrs = p.scope.Addrs[:n]
	p.v4, p.v6 = p.scope.ranges()
	return p
}
