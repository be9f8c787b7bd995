package vectors_test

import (
	"testing"

	"jailtap/bpf"
	"jailtap/compat/vectors"
)

// compile is bpf.Compile for a vector. None is too long, also of those about the
// limits: Compile finds enough to leave out.
func compile(t *testing.T, v vectors.Scope, d bpf.Dialect) bpf.Program {
	t.Helper()
	view := bpf.View{LinkType: bpf.LinkType(v.LinkType)}
	p, err := bpf.Compile(v.Scope(), view, d, bpf.Program(v.User))
	if err != nil {
		t.Fatalf("%s: %v: %v", v.ID, d, err)
	}
	return p
}

func TestCompiledFiltersAreTheConjunction(t *testing.T) {
	n := tally{}
	for _, v := range load(t).Scope {
		pkt := v.Packet()
		p := compile(t, v, bpf.FreeBSD)
		n.verdict(t, v.ID, "flat", flat.Run(p, pkt), v.Want)
		n.verdict(t, v.ID, "mbuf", receive.Run(p, pkt), orElse(v.WantMbuf, v.Want))
		// Programs that Linux refuses were compiled for FreeBSD only; no
		// program is not one of them.
		user := bpf.Program(v.User)
		if len(user) > 0 && user.Validate(bpf.Linux) != nil {
			n["refused by Linux"]++
			continue
		}
		want := v.Want
		if v.WantScope { // the same but for metadata
			want = linux.Run(user, pkt)
		}
		n.verdict(t, v.ID, "Linux", linux.Run(compile(t, v, bpf.Linux), pkt), want)
	}
	n.check(t, tally{"flat": 4928, "mbuf": 4928, "Linux": 4898, "refused by Linux": 30})
}
