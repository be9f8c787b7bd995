package bpf

import (
	"errors"
	"fmt"
)

// Inject puts p in front of user, which may be any valid program (an empty one
// keeps everything): the result gives user's verdict on frames in scope, and 0
// on all others. user finds A, X and M[] as at the start of a program.
//
// Where p's tests decide what user would ask, it is not asked again. The
// result may be longer than a system takes; see Compile.
func Inject(p Prefix, user Program) Program {
	plain := p.plain(user)
	fast, ok := specialize(p.graph(user.start().graph(), ret(0)))
	if !ok {
		return plain
	}
	// Copies for different paths may make it longer, which is a fair price
	// only within reason.
	program := emit(fast, nil)
	if len(program) > 2*len(plain)+64 {
		return plain
	}
	return program
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
	Insns   int // of the program that would be needed
	Addrs   int // in the scope
	Fit     int // of them, the first so many would fit
}

func (e *TooManyAddressesError) Error() string {
	return fmt.Sprintf("too many addresses for a classic program: %d of %d fit (%d instructions; %v takes at most %d)",
		e.Fit, e.Addrs, e.Insns, e.Dialect, e.Dialect.MaxInstructions())
}

// Compile makes the program to attach: user, which means the frame as a
// capture file will hold it, runs only on frames of scope s. The program is
// validated for d and proved.
//
// Errors: *ProgramError (user), *TooLongError, *TooManyAddressesError, and
// ErrNotLive wrapped.
func Compile(s Scope, v View, d Dialect, user Program) (Program, error) {
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
	if err := errors.Join(program.Validate(d), Prove(program, s, v)); err != nil {
		return nil, fmt.Errorf("internal error, nothing is attached: %w", err)
	}
	return program, nil
}

// within injects with regard to the longest program that d takes.
func (p Prefix) within(d Dialect, user Program) (Program, error) {
	limit := d.MaxInstructions()
	program := Inject(p, user)
	if len(program) > limit {
		if plain := p.plain(user); len(plain) < len(program) {
			program = plain
		}
	}
	if len(program) <= limit {
		return program, nil
	}
	none := p
	none.scope.Addrs, none.v4, none.v6 = nil, nil, nil
	if len(none.plain(user)) > limit {
		return nil, &TooLongError{d, len(program), len(p.plain(nil))}
	}
	return nil, &TooManyAddressesError{d, len(program), len(p.scope.Addrs), p.fit(limit, user)}
}

// plain is p in front of user, as they are.
func (p Prefix) plain(user Program) Program {
	return emit(p.graph(&block{tail: true}, ret(0)), user.start())
}

// fit is how many of the scope's addresses have room.
func (p Prefix) fit(limit int, user Program) int {
	fits, tooMany := 0, len(p.scope.Addrs)
	for tooMany-fits > 1 {
		n := (fits + tooMany) / 2
		some := p
		some.scope.Addrs = p.scope.Addrs[:n]
		some.v4, some.v6 = some.scope.ranges()
		if len(some.plain(user)) <= limit {
			fits = n
		} else {
			tooMany = n
		}
	}
	return fits
}
