//go:build amd64 || arm64

package oci

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"jailtap/loader/agent"
)

// A call is a system call with its arguments.
type call struct {
	name string
	args [maxArgs]uint64
}

// holds reports whether a comparison is true, as seccomp_rule_add(3) says.
func (c call) holds(arg specs.LinuxSeccompArg) bool {
	v := c.args[arg.Index]
	switch arg.Op {
	case specs.OpEqualTo:
		return v == arg.Value
	case specs.OpNotEqual:
		return v != arg.Value
	case specs.OpLessThan:
		return v < arg.Value
	case specs.OpLessEqual:
		return v <= arg.Value
	case specs.OpGreaterThan:
		return v > arg.Value
	case specs.OpGreaterEqual:
		return v >= arg.Value
	case specs.OpMaskedEqual:
		return v&arg.Value == arg.ValueTwo
	}
	panic(arg.Op)
}

// actions are those of all rules about a call, each once.
func (c call) actions(p *Profile) (actions []specs.LinuxSeccompAction) {
	for _, s := range p.Syscalls {
		if slices.Contains(s.Names, c.name) && !slices.ContainsFunc(s.Args, func(a specs.LinuxSeccompArg) bool { return !c.holds(a) }) {
			actions = append(actions, s.Action)
		}
	}
	slices.Sort(actions)
	return slices.Compact(actions)
}

// isOurs reports whether the agent has to hear of a call.
func (c call) isOurs() bool {
	return slices.ContainsFunc(agent.Rules(), func(r agent.Rule) bool {
		return r.Name == c.name && !slices.ContainsFunc(r.Args, func(a agent.Arg) bool { return c.args[a.Index] != uint64(a.Value) })
	})
}

// values are near everything that rules compare with.
func someValue(r *rand.Rand) uint64 {
	switch r.IntN(8) {
	case 0:
		return math.MaxUint64 - uint64(r.IntN(2))
	case 1:
		return 1<<32 + uint64(r.IntN(60))
	}
	return uint64(r.IntN(60))
}

func someRule(r *rand.Rand) Syscall {
	s := Syscall{Action: []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess}[r.IntN(3)]}
	for _, name := range []string{"socket", "setsockopt", "read"} {
		if r.IntN(2) == 0 {
			s.Names = append(s.Names, name)
		}
	}
	if s.Names == nil {
		s.Name = "socket"
	}
	for index := range uint(4) {
		if r.IntN(3) > 0 {
			continue
		}
		ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual}
		arg := specs.LinuxSeccompArg{Index: index, Value: someValue(r), Op: ops[r.IntN(len(ops))]}
		if index == 3 {
			arg.Op, arg.Value, arg.ValueTwo = specs.OpMaskedEqual, 3, uint64(r.IntN(4))
		}
		s.Args = append(s.Args, arg)
	}
	return s
}

func TestAMergedProfileIsTheOldOneButForWhatTheAgentHearsOf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	merged, ours := 0, 0
	for range 3000 {
		old, p := AllowAll(), AllowAll()
		for range 1 + r.IntN(4) {
			rule := someRule(r)
			p.Syscalls = append(p.Syscalls, rule)
			if rule.Name != "" {
				rule.Names = []string{rule.Name}
			}
			old.Syscalls = append(old.Syscalls, rule)
		}
		if err := p.Merge("/x", ""); err != nil {
			if !strings.Contains(err.Error(), "too many values") {
				t.Fatal(err)
			}
			continue
		}
		merged++
		for range 100 {
			c := call{name: []string{"socket", "setsockopt", "read"}[r.IntN(3)]}
			for i := range c.args {
				c.args[i] = someValue(r)
			}
			if r.IntN(2) == 0 { // among ours are few by chance
				c.args[0], c.args[1], c.args[2] = 17, 1, []uint64{26, 27, 44, 50, 51}[r.IntN(5)]
			}
			want := c.actions(old)
			if c.isOurs() {
				ours++
				want = []specs.LinuxSeccompAction{specs.ActNotify}
			}
			if got := c.actions(p); !slices.Equal(got, want) {
				t.Fatalf("%+v: %v, want %v\nold %+v\nnew %+v", c, got, want, old.Syscalls, p.Syscalls)
			}
		}
	}
	if merged < 1000 || ours < 10000 {
		t.Errorf("%d profiles merged, %d calls of ours: that is too few to say anything", merged, ours)
	}
}

// libseccomp takes one comparison of each argument in a rule.
func TestNoMergedRuleComparesAnArgumentTwice(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		p := AllowAll()
		p.Syscalls = []Syscall{someRule(r)}
		if p.Merge("/x", "") != nil {
			continue
		}
		for _, s := range p.Syscalls {
			for i, arg := range s.Args {
				if slices.ContainsFunc(s.Args[:i], func(a specs.LinuxSeccompArg) bool { return a.Index == arg.Index }) {
					t.Fatalf("%+v", s)
				}
			}
		}
	}
}

func TestRulesThatLeaveNoRoomAreErrors(t *testing.T) {
	compare := func(op specs.LinuxSeccompOperator, index uint, value uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: value, Op: op}
	}
	for words, args := range map[string][]specs.LinuxSeccompArg{
		"argument 0 has SCMP_CMP_MASKED_EQ where the agent": {compare(specs.OpMaskedEqual, 0, 1)},
		"argument 0 is compared twice":                      {compare(specs.OpNotEqual, 0, 40), compare(specs.OpNotEqual, 0, 41)},
		"there is no argument 6":                            {compare(specs.OpEqualTo, 6, 1)},
		`unknown operator "<"`:                              {compare("<", 0, 1)},
		"argument 0 has too many values between 18 and 999": {compare(specs.OpLessEqual, 0, 999)},
	} {
		p := AllowAll()
		p.Syscalls = []Syscall{{Names: []string{"socket"}, Action: specs.ActAllow, Args: args}}
		if err := p.Merge("/x", ""); err == nil || !strings.Contains(err.Error(), words) || !strings.HasPrefix(err.Error(), "rule 1 of the profile: ") {
			t.Errorf("%v, want %q", err, words)
		}
	}
}

func TestWhatEnginesHaveInAProfileStaysWithItsRule(t *testing.T) {
	p, err := ReadProfile([]byte(`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "EPERM", "archMap": [{}],
		"syscalls": [{"names": ["socket", "bind"], "action": "SCMP_ACT_ALLOW", "errnoRet": 2, "comment": "c", "includes": {"caps": ["X"]}, "excludes": {}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Merge("/x", "m"); err != nil {
		t.Fatal(err)
	}
	if p.ListenerPath != "/x" || p.ListenerMetadata != "m" || *p.DefaultErrnoRet != 1 || p.DefaultErrno != "EPERM" || p.ArchMap != nil ||
		!slices.Equal(p.Architectures, []specs.Arch{native}) {
		t.Errorf("%+v", p)
	}
	rest := p.Syscalls[len(agent.Rules()):]
	for i, names := range []string{"[bind]", "[socket]"} {
		if s := rest[i]; fmt.Sprint(s.Names) != names || *s.ErrnoRet != 2 || s.Comment != "c" || string(s.Includes) != `{"caps": ["X"]}` || string(s.Excludes) != "{}" {
			t.Errorf("%+v", s)
		}
	}
	if len(rest) != 2 || len(rest[0].Args) != 0 || len(rest[1].Args) != 1 {
		t.Errorf("%+v", rest)
	}
}
