package conform

import (
	"slices"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
	"jailtap/compat/vectors"
)

// A question is what a vector asks an engine, and what is right.
type question struct {
	name   string // of the part of the vector
	filter Filter
	user   bpf.Program // the program as the vector has it
	pkts   []bpf.Packet

	refused bool                     // right is that the system refuses the program
	right   func(int) (uint32, bool) // the verdict on packet i; false: not known
	as      comparison
}

// A comparison is what right says of the answer.
type comparison uint8

const (
	same    comparison = iota // it is the verdict
	differs                   // it is not the verdict
	keeps                     // so many bytes are kept of the packet
	whether                   // it is accepted if right is not 0
)

// holds reports whether an answer is right.
func (q question) holds(i int, right uint32, a Answer) bool {
	size := len(q.pkts[i].Data)
	switch q.as {
	case differs:
		return !a.is(right, size)
	case keeps:
		a.Kept, a.Exact = min(a.Kept, uint32(size)), false
	case whether:
		return a.Accepted == (right != 0)
	}
	return a.is(right, size)
}

// alone asks about a program without a scope.
func alone(name string, lt bpf.LinkType, p bpf.Program, pkts ...bpf.Packet) question {
	return question{name: name, filter: Filter{LinkType: lt, Program: p}, user: p, pkts: pkts}
}

// one is the right verdict on the only packet.
func one(verdict uint32) func(int) (uint32, bool) {
	return func(int) (uint32, bool) { return verdict, true }
}

func orElse(special *uint32, usual uint32) uint32 {
	if special != nil {
		return *special
	}
	return usual
}

// A vector is one of any kind.
type vector struct {
	id, kind string

	// ask makes the questions for an engine; cannot says why there are none.
	ask func(e Engine) (questions []question, cannot string)

	// inScope is what bpf.Scope.Match must say, which no engine has a part in;
	// nil: there is no scope.
	inScope func() bool
}

// list is the vectors of a set in order.
func list(set *vectors.Set) []vector {
	var all []vector
	for _, v := range set.Interp {
		all = append(all, vector{id: v.ID, kind: "interp", ask: func(e Engine) ([]question, string) { return interp(e, v) }})
	}
	for _, v := range set.Scope {
		scope := v.Scope()
		all = append(all, vector{id: v.ID, kind: v.Kind,
			ask:     func(e Engine) ([]question, string) { return scoped(e, v, &scope), "" },
			inScope: func() bool { return scope.Match(bpf.LinkType(v.LinkType), v.Pkt) == v.WantScope }})
	}
	for _, v := range set.Limit {
		all = append(all, vector{id: v.ID, kind: "limit", ask: func(e Engine) ([]question, string) { return limit(e, v), "" }})
	}
	for _, v := range set.Accept {
		all = append(all, vector{id: v.ID, kind: "accept", ask: func(e Engine) ([]question, string) { return accept(e, v), "" }})
	}
	return append(all, answers(set)...)
}

// interp is about the validator, which knows no limit on the length, and the
// interpreter.
func interp(e Engine, v vectors.Interp) ([]question, string) {
	p := bpf.Program(v.Prog)
	if v.Valid && len(p) > e.Mode().Dialect().MaxInstructions() {
		return nil, "bpf_validate knows no limit on a program's length, which the system has"
	}
	q := alone("program", bpf.Ethernet, p, v.Packet())
	if !v.Valid {
		q.refused = true
		return []question{q}, ""
	}
	return program(e, q, marked(v.Linux, p, v.Packet()), v.Ret, v.RetMbuf), ""
}

// program asks about a program that FreeBSD takes: with the verdict of the flat
// buffer, and what is special elsewhere.
func program(e Engine, q question, linux vectors.Linux, ret uint32, mbuf *uint32) []question {
	q.right = one(ret)
	if e.Mode() == Receive {
		q.right = one(orElse(mbuf, ret))
	}
	if e.Mode() != Linux {
		return []question{q}
	}
	switch {
	case linux == vectors.LinuxRefuses:
		n := q
		q.refused = true
		if !n.normalize() { // FreeBSD takes it but for its length
			return []question{q}
		}
		n.name = normalized + q.name
		n.judgeLinux(e)
		return []question{q, n}
	case e.Name() == "vm" && linux == vectors.LinuxDiffers:
		q.as = differs
	default:
		q.judgeLinux(e)
	}
	return []question{q}
}

// normalize makes the program one that Linux takes, if there is one.
func (q *question) normalize() bool {
	p, err := bpf.Normalize(q.filter.Program)
	if err == nil {
		q.filter.Program = p
	}
	return err == nil
}

// judgeLinux makes right what Linux does with a program that sees more than a
// packet's bytes.
func (q *question) judgeLinux(e Engine) {
	if readsMetadata(q.filter.Program) {
		q.right = unlessSpecial(e, *q)
	}
}

// marked is what a vector says of Linux. It says nothing of packets that are
// cut, for which no Linux socket could be asked.
func marked(says vectors.Linux, p bpf.Program, pkt bpf.Packet) vectors.Linux {
	if says == vectors.LinuxSame && int64(pkt.WireLen) != int64(len(pkt.Data)) && p.Validate(bpf.Linux) != nil {
		return vectors.LinuxRefuses
	}
	return says
}

// reference is the verdicts of the reference VM, for programs that see more
// than a packet's bytes.
func reference(e Engine, q question) func(int) (uint32, bool) {
	return func(i int) (uint32, bool) {
		pkt := q.pkts[i]
		var known bool
		pkt.Meta, known = e.Metadata(pkt)
		if !known || slices.ContainsFunc(q.filter.Program, cannotBeForetold) {
			return 0, false
		}
		return q.filter.verdict(e.Mode().VM(), pkt), true
	}
}

// unlessSpecial is what is right in a flat buffer, but where the reference says
// that it is not so with this engine.
func unlessSpecial(e Engine, q question) func(int) (uint32, bool) {
	right, special := q.right, reference(e, q)
	flat := Filter{q.filter.LinkType, q.filter.Scope, q.user}
	return func(i int) (uint32, bool) {
		if verdict, known := special(i); !known || verdict != flat.verdict(Flat.VM(), q.pkts[i]) {
			return verdict, known
		}
		return right(i)
	}
}

// verdict is that of a VM, on packets in scope.
func (f Filter) verdict(vm bpf.VM, pkt bpf.Packet) uint32 {
	if f.Scope != nil && !f.Scope.Match(f.LinkType, pkt.Data) {
		return 0
	}
	return vm.Run(f.Program, pkt)
}

// scoped is about a user program, alone and behind a scope.
func scoped(e Engine, v vectors.Scope, scope *bpf.Scope) []question {
	user := bpf.Program(v.User)
	linux := marked(v.LinuxUser, user, v.Packet())
	single := alone("user program", bpf.LinkType(v.LinkType), user, v.Packet())
	both := single
	both.name, both.filter.Scope = "scope and program", scope
	both.right = one(v.Want)
	switch {
	case e.Mode() == Receive:
		both.right = one(orElse(v.WantMbuf, v.Want))
		if !v.WantScope { // want_mbuf says nothing of the user program alone
			single.right = reference(e, single)
			return []question{single, both}
		}
		return append(program(e, single, "", v.WantUser, v.WantMbuf), both)
	case e.Mode() == Linux:
		if linux == vectors.LinuxRefuses && len(user) > 0 {
			both.normalize()
		}
		both.judgeLinux(e)
	}
	return append(program(e, single, linux, v.WantUser, nil), both)
}

func limit(e Engine, v vectors.Limit) []question {
	takes := v.FreeBSDAttach
	if e.Mode() == Linux {
		takes = v.LinuxAttach
	}
	q := alone("program", bpf.Ethernet, bpf.Program(v.Prog), v.Packet())
	q.refused, q.right = !takes, one(v.Ret)
	return []question{q}
}

// accept has no marks where the systems differ: there the reference counts.
func accept(e Engine, v vectors.Accept) []question {
	q := alone("program", bpf.LinkType(v.LinkType), bpf.Program(v.User))
	for i := range v.Pkts {
		q.pkts = append(q.pkts, v.Packet(i))
	}
	q.right = func(i int) (uint32, bool) { return v.Results[i], true }
	if v.Whether() {
		q.as = whether
	}
	switch {
	case e.Mode() == Receive:
		q.right = unlessSpecial(e, q)
	case e.Mode() == Linux && q.user.Validate(bpf.Linux) != nil:
		n := q
		q.refused = true
		if n.normalize() {
			n.name = normalized + q.name
			n.judgeLinux(e)
			return []question{q, n}
		}
	case e.Mode() == Linux:
		q.judgeLinux(e)
	}
	return []question{q}
}

// answers are what a FreeBSD kernel said about the vectors of the set.
func answers(set *vectors.Set) []vector {
	about := make(map[string]question)
	for _, v := range set.Interp {
		about["interp "+v.ID] = alone("program", bpf.Ethernet, bpf.Program(v.Prog), v.Packet())
	}
	for _, v := range set.Limit {
		about["limits "+v.ID] = alone("program", bpf.Ethernet, bpf.Program(v.Prog), v.Packet())
	}
	for _, v := range set.Scope {
		file := map[string]string{"scope": "scope ", "scope-limit": "limits "}[v.Kind]
		scope := v.Scope()
		q := alone("program", bpf.LinkType(v.LinkType), bpf.Program(v.User), v.Packet())
		q.filter.Scope = &scope
		about[file+v.ID] = q
	}
	var all []vector
	for _, k := range set.Kernel {
		q, known := about[k.File+" "+k.ID]
		all = append(all, vector{id: k.ID, kind: "kernel", ask: func(e Engine) ([]question, string) {
			switch {
			case !known:
				return nil, "the answer of a FreeBSD kernel about a vector that is not in these files"
			case e.Mode() != Receive:
				return nil, "the answer of a FreeBSD kernel, which is for dialect freebsd"
			}
			return answer(k, q), ""
		}})
	}
	return all
}

// answer asks again what the kernel was asked. It ran programs on what is
// present of the packet, as if it were all.
func answer(k vectors.Kernel, q question) []question {
	pkt := q.pkts[0]
	pkt.WireLen = uint32(len(pkt.Data))
	q.pkts = []bpf.Packet{pkt}
	q.as = keeps
	single := q
	single.filter.Scope = nil
	switch {
	case !k.Valid:
		single.refused = true
	case k.Ran:
		single.right = one(k.Caplen)
	default:
		single.pkts = nil // that it is taken is all that is known
	}
	if k.ConjCaplen == nil {
		return []question{single}
	}
	q.name, q.right = "scope and program", one(*k.ConjCaplen)
	return []question{single, q}
}

// cannotBeForetold reports whether the instruction loads what no test knows:
// SKF_AD_CPU, SKF_AD_RANDOM (linux/filter.h).
func cannotBeForetold(in xbpf.RawInstruction) bool {
	const ldAbs, widths = 0x20, 0x18
	return in.Op&^widths == ldAbs && (in.K == 0xfffff000+36 || in.K == 0xfffff000+56)
}

// readsMetadata reports whether a program may see more than a packet's bytes.
func readsMetadata(p bpf.Program) bool {
	return slices.ContainsFunc(bpf.Portable(p), func(d bpf.Difference) bool {
		return d.Cause == bpf.CauseMetadata || d.Cause == bpf.CauseIndex
	})
}
