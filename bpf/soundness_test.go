package bpf_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
)

// cases is how many random cases a property test tries: JAILTAP_CASES (as in
// `make fuzz`), or few enough for every day.
func cases(t testing.TB, everyday int) int {
	text := strings.ReplaceAll(os.Getenv("JAILTAP_CASES"), "_", "")
	if text == "" {
		return everyday
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("JAILTAP_CASES=%q is no number", text)
	}
	return n
}

// seed is where random tests begin: JAILTAP_SEED, or always the same.
func seed() uint64 {
	n, _ := strconv.ParseUint(os.Getenv("JAILTAP_SEED"), 10, 64)
	return n
}

const framesEach = 100

// minWhole is how long a frame is at least that has all headers.
const minWhole = 76

func TestAnInjectedProgramIsScopeAndUser(t *testing.T) {
	s := newSource(seed())
	vms := []bpf.VM{{Dialect: bpf.Linux}, {Dialect: bpf.FreeBSD}}
	compared, accepted, skipped := 0, 0, 0
	for compared < cases(t, 100_000) {
		if s.IntN(50) == 0 {
			s = newSource(s.Uint64()) // other addresses
		}
		lt := pick(s, bpf.Ethernet, bpf.Ethernet, bpf.Ethernet, bpf.Null, bpf.Loop, bpf.Raw, bpf.LinuxSLL, bpf.LinuxSLL2)
		scope := s.scope()
		user, about := s.user(t, lt)
		program, err := bpf.Compile(scope, bpf.View{LinkType: lt}, bpf.Linux, user)
		if err != nil {
			t.Fatalf("scope %+v, %v, user %s: %v", scope, lt, about, err)
		}
		conjunction, exact := s.conjunction(t, scope, lt, about)
		for range framesEach {
			frame := s.frame(lt)
			packet := bpf.Packet{Data: frame, WireLen: uint32(len(frame))}
			for _, vm := range vms {
				want := uint32(0)
				if scope.Match(lt, frame) {
					want = vm.Run(user, packet)
				}
				if got := vm.Run(program, packet); got != want {
					t.Fatalf("%v, scope %+v, %v, user %s\nframe %x: verdict %d, want %d\n%s\nuser\n%s", vm.Dialect, scope, lt, about, frame, got, want, program.Text(), user.Text())
				}
				if want != 0 {
					accepted++
				}
			}
			compared++
			if !exact || !whole(lt, frame) {
				skipped++
				continue
			}
			if got, want := vms[0].Run(program, packet), vms[0].Run(conjunction, packet); (got != 0) != (want != 0) {
				t.Fatalf("scope %+v, %v, user %s\nframe %x: verdict %d, libpcap's conjunction says %d", scope, lt, about, frame, got, want)
			}
		}
	}
	if accepted < compared/50 {
		t.Errorf("only %d of %d verdicts accept: the test has lost its point", accepted, compared)
	}
	t.Logf("%d frames compared, %d verdicts accept, %d frames without libpcap's word", compared, accepted, skipped)
}

// user is a random user program. about is its expression, "" if it is empty,
// or starts with "program" if it has none.
func (s *source) user(t *testing.T, lt bpf.LinkType) (user bpf.Program, about string) {
	for {
		switch s.IntN(8) {
		case 0:
			return nil, ""
		case 1, 2, 3:
			user = s.program()
			if user.Validate(bpf.Linux) != nil {
				continue
			}
			return user, "program"
		}
		about = s.expression()
		user, err := pcapexpr.CompileUnoptimized(about, lt, 262144)
		if s.IntN(2) == 0 {
			user, err = pcapexpr.Compile(about, lt, 262144)
		}
		if err == nil {
			return user, about
		}
		if !errors.As(err, new(*pcapexpr.ExprError)) {
			t.Fatal(err)
		}
	}
}

// conjunction is libpcap's own program for scope and user. exact is false if
// there is none that means the same.
func (s *source) conjunction(t *testing.T, scope bpf.Scope, lt bpf.LinkType, user string) (_ bpf.Program, exact bool) {
	if user == "program" {
		return nil, false
	}
	expr := "(" + scope.Expr(lt) + ")"
	cooked := lt == bpf.LinuxSLL || lt == bpf.LinuxSLL2
	if !scope.VLANs.None() && (cooked || user != "") { // no words; or `vlan` moves what follows it
		return nil, false
	}
	if user != "" {
		expr += " and (" + user + ")"
	}
	p, err := pcapexpr.CompileUnoptimized(expr, lt, 262144)
	if err != nil {
		t.Fatalf("libpcap refuses the scope's expression on %v: %v", lt, err)
	}
	return p, true
}

// whole reports whether libpcap's words and the scope's rule are about the
// same thing: they part where a header is cut off, where tags are nested
// deeper than Expr says, and for address families of other systems.
func whole(lt bpf.LinkType, frame []byte) bool {
	if len(frame) < minWhole {
		return false
	}
	switch lt {
	case bpf.Null:
		return frame[0] == 2 || frame[0] == 10
	case bpf.Loop:
		return frame[3] == 2 || frame[3] == 10
	}
	return true
}
