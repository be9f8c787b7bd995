package bpf

import (
	"encoding/binary"
	"math"
	"slices"

	xbpf "golang.org/x/net/bpf"
)

// specialize is the graph without what is known before it runs: it walks all
// paths with what their tests have established, goes through decided jumps
// without asking again, leaves out loads of what is in the register already,
// and whatever nobody reads. Verdicts stay the same on every frame, also on
// one that is cut off: a load that may end the program stays.
//
// Paths that know different things get copies of the code behind them as far
// as that makes a difference. ok is false if there are too many; the caller
// then keeps the graph that it has.
func specialize(entry *block) (_ *block, ok bool) {
	return newSpecializer(entry).specialize(entry)
}

func newSpecializer(entry *block) *specializer {
	s := &specializer{
		terms:  newTerms(),
		walked: make(map[*block]*reached, usualBlocks),
		known:  make(map[string]*block, usualBlocks),
		same:   make(map[string]*block, usualBlocks),
		made:   make(map[*block]madeBlock, usualBlocks),
	}
	s.look(entry)
	return s
}

func (s *specializer) specialize(entry *block) (_ *block, ok bool) {
	zero := s.terms.constant(0)
	start := pathState{a: zero, x: zero}
	for i := range start.mem {
		start.mem[i] = zero
	}
	made := s.run(entry, start)
	return made, s.steps < maxSteps
}

const (
	maxSteps    = 20000 // bounds the work: blocks walked, over all paths
	usualBlocks = 24    // of a graph with few addresses: what there is room for at first
)

type specializer struct {
	terms *terms
	steps int
	flat  bool // FreeBSD's receive path does not matter

	// Of the graph that is walked.
	walked map[*block]*reached

	// Of the graph that is made.
	known map[string]*block // by where a path was, and with what state
	same  map[string]*block // by content
	made  map[*block]madeBlock

	key []byte // room for a key
}

// reached is what the code from a block on may load, and needs.
type reached struct {
	id    uint32
	live  regs
	loads loadSet
	end   uint32 // of the farthest absolute load
}

// A madeBlock is what is known of a block of the graph that is made.
type madeBlock struct {
	id   uint32
	live regs // what it needs
}

// look fills walked.
func (s *specializer) look(b *block) *reached {
	if r, ok := s.walked[b]; ok {
		return r
	}
	r := &reached{}
	for _, in := range b.body {
		if in.Op&classMask > classLdx || in.Op&modeMask == modeImm || in.Op&modeMask == modeMem {
			continue
		}
		op := in.Op
		if op == opLdxMsh {
			op = opLdB // see execLoad
		}
		r.loads = r.loads.with(s.terms.loadIndex(load{op, in.K}))
		if end, ok := loadEnd(in); ok {
			r.end = max(r.end, end)
		}
	}
	live, _ := effects(b.last)
	if !b.returns() {
		yes, no := s.look(b.yes), s.look(b.no)
		r.loads = r.loads.union(yes.loads).union(no.loads)
		r.end = max(r.end, yes.end, no.end)
		live |= yes.live | no.live
	}
	r.live = liveBefore(b.body, live)
	r.id = uint32(len(s.walked))
	s.walked[b] = r
	return r
}

// loadEnd is how long a frame must be for an absolute load to succeed.
func loadEnd(in xbpf.RawInstruction) (end uint32, ok bool) {
	mode := in.Op & modeMask
	if in.Op&classMask > classLdx || mode != modeAbs && mode != modeMsh || in.K > maxOffset {
		return 0, false
	}
	return in.K + loadWidth(in.Op), true
}

// maxOffset is the largest offset that is surely one into the frame.
const maxOffset = 0x7fffff00

// A pathState is what is known at a place on one path.
type pathState struct {
	a, x   value
	mem    [memWords]value
	facts  []fact // sorted by what they are about; never changed in place
	minLen uint32 // the frame has at least so many bytes
}

// run finishes the graph from b on for frames that come with state st.
func (s *specializer) run(b *block, st pathState) *block {
	st = s.restrict(b, st)
	s.key = s.stateKey(s.key[:0], b, st)
	made, ok := s.known[string(s.key)]
	if !ok {
		key := string(s.key)
		made = s.walk(b, st)
		s.known[key] = made
	}
	return made
}

// A step is an instruction that has been walked. It may be left out if nobody
// reads what it sets and it cannot end the program.
type step struct {
	in      xbpf.RawInstruction
	mayStop bool
}

// walk goes from b to the first jump that is not decided, or to a return.
func (s *specializer) walk(b *block, st pathState) *block {
	var steps []step
	held := st.a
	for {
		s.steps++
		if s.steps >= maxSteps { // specialize drops the answer
			return ret(0)
		}
		if b.forget {
			st.facts = s.forgetAddresses(st.facts)
		}
		for _, in := range b.body {
			if done := s.exec(in, &st, &steps); done {
				return s.finish(ret(0), nil, steps)
			}
		}
		if b.returns() {
			return s.finish(&block{last: s.returned(b.last, st)}, nil, steps)
		}
		if b.yes == b.no {
			b = b.yes
			continue
		}
		q := s.question(b.last, st)
		switch s.answer(st, q) {
		case always:
			b = b.yes
			continue
		case never:
			b = b.no
			continue
		}
		yes := s.run(b.yes, s.learn(st, q, true))
		no := s.run(b.no, s.learn(st, q, false))
		if yes == no { // nothing depends on the test
			for _, in := range yes.body {
				steps = append(steps, step{in, true})
			}
			same := *yes
			same.body = nil
			return s.finish(&same, nil, steps)
		}
		if made := s.heldFirst(b, held, steps, q, yes, no); made != nil {
			return made
		}
		return s.finish(&block{last: q.last, yes: yes, no: no, scope: b.scope}, b, steps)
	}
}

// heldFirst changes the order of two tests that must both hold, where the
// second compares a field that A held before the first loaded another: then it
// need not be loaded again. It does so only where the second asks for one
// value, which few frames have. nil means that it is not so.
func (s *specializer) heldFirst(origin *block, held value, steps []step, q question, yes, no *block) *block {
	if len(steps) != 1 || steps[0].in.Op&(classMask|modeMask) != classLd|modeAbs {
		return nil
	}
	second := yes
	if yes.rejects() {
		second = no
	} else if !no.rejects() {
		return nil
	}
	if second.last.Op != opJeq || !second.no.rejects() || len(second.body) != 1 {
		return nil
	}
	again := second.body[0]
	if s.terms.value(term{op: again.Op, k: again.K}) != held || s.made[second.yes].live&regA != 0 {
		return nil
	}
	then := &block{last: q.last, yes: yes, no: no, scope: origin.scope}
	if second == yes {
		then.yes = second.yes
	} else {
		then.no = second.yes
	}
	first := &block{last: second.last, yes: s.finish(then, origin, steps), no: second.no, scope: origin.scope}
	return s.finish(first, origin, nil)
}

// rejects reports whether b does nothing but reject.
func (b *block) rejects() bool { return len(b.body) == 0 && b.last == ins(opRetK, 0) }

// finish puts the steps into b, without what nobody reads, or finds a block
// that is the same. origin is the walked block that asks b's question.
func (s *specializer) finish(b, origin *block, steps []step) *block {
	live, _ := effects(b.last)
	if b.last == ins(opRetK, 0) {
		steps = withoutRejects(steps)
	}
	if !b.returns() {
		live |= s.made[b.yes].live | s.made[b.no].live
	}
	for _, st := range slices.Backward(steps) {
		reads, sets := effects(st.in)
		if !st.mayStop && sets&live == 0 {
			continue
		}
		live = live&^sets | reads
		b.body = append(b.body, st.in)
	}
	slices.Reverse(b.body)

	s.key = s.contentKey(s.key[:0], b, origin)
	if same, ok := s.same[string(s.key)]; ok {
		return same
	}
	s.same[string(s.key)] = b
	s.made[b] = madeBlock{uint32(len(s.made)), live}
	return b
}

// withoutRejects are the steps that do something else than reject, where
// rejecting comes next anyway: metadata of a device that does not exist.
func withoutRejects(steps []step) []step {
	for i, st := range slices.Backward(steps) {
		if reads, _ := effects(st.in); reads&regA != 0 && st.in.Op&classMask == classLd {
			return steps[:i+1]
		}
	}
	return nil
}

// exec walks one instruction. done says that it ends the program.
func (s *specializer) exec(in xbpf.RawInstruction, st *pathState, steps *[]step) (done bool) {
	switch in.Op & classMask {
	case classLd, classLdx:
		s.execLoad(in, st, steps)
		return false
	case classSt:
		return s.set(&st.mem[in.K], st.a, in, false, steps)
	case classStx:
		return s.set(&st.mem[in.K], st.x, in, false, steps)
	case classMisc:
		if in.Op == opTax {
			return s.set(&st.x, st.a, in, false, steps)
		}
		return s.set(&st.a, st.x, in, false, steps)
	default:
		return s.execALU(in, st, steps)
	}
}

// set gives a register a value, by an instruction unless it has it already.
func (s *specializer) set(reg *value, v value, in xbpf.RawInstruction, mayStop bool, steps *[]step) (done bool) {
	if *reg != v {
		*reg = v
		*steps = append(*steps, step{in, mayStop})
	}
	return false
}

func (s *specializer) execLoad(in xbpf.RawInstruction, st *pathState, steps *[]step) {
	reg := &st.a
	if in.Op&classMask == classLdx {
		reg = &st.x
	}
	switch in.Op & modeMask {
	case modeImm:
		s.set(reg, s.terms.constant(in.K), in, false, steps)
		return
	case modeMem:
		s.set(reg, st.mem[in.K], in, false, steps)
		return
	case modeLen:
		s.set(reg, s.terms.value(term{op: opLdLen}), in, false, steps)
		return
	}
	in = s.direct(in, *st)
	if off, ok := s.knownHalf(in, *st); ok {
		// By a word that ends there, which is proof that the frame does not end before.
		st.a = s.terms.value(term{op: opLdH, k: off})
		*steps = append(*steps, step{ins(opLdW, off-2), true}, step{ins(opAnd, 0xffff), false})
		st.minLen = max(st.minLen, off+2)
		return
	}
	t := term{op: in.Op, k: in.K}
	if in.Op&modeMask == modeInd {
		t.a = st.x
		// Adding to the index is adding to the offset, if nothing wraps.
		if x := s.terms.of[st.x]; x.op == opAdd && s.terms.of[x.b].op == termConst {
			if c := uint64(s.terms.of[x.b].k); uint64(s.terms.outset(x.a).hi)+c+uint64(in.K) <= math.MaxUint32 {
				t.a, t.k = x.a, in.K+uint32(c)
			}
		}
	}
	v := s.terms.value(t)
	if in.Op == opLdxMsh { // as a program may compute it too
		v = s.terms.value(term{op: opLdB, k: in.K})
		v = s.terms.value(term{op: opAnd, a: v, b: s.terms.constant(0xf)})
		v = s.terms.value(term{op: classAlu | aluLsh, a: v, b: s.terms.constant(2)})
	}
	if in.Op&modeMask == modeAbs {
		switch in.K {
		case adRandom, adNlattr, adNlattrNest, adAluXorX: // not a matter of the frame alone
			v = s.terms.unknown()
		}
	}
	end, plain := loadEnd(in)
	s.set(reg, v, in, !plain || end > st.minLen, steps)
	// A half-word proves nothing: FreeBSD's receive path loads 0 where the
	// frame has ended, and goes on.
	if plain && in.Op&sizeMask != sizeH {
		st.minLen = max(st.minLen, end)
	}
}

// direct makes an indexed load an absolute one, where the index is known. Of a
// half-word that is not the same if it may lie behind the end: see execLoad.
func (s *specializer) direct(in xbpf.RawInstruction, st pathState) xbpf.RawInstruction {
	x := s.fact(st, st.x)
	if in.Op&modeMask != modeInd || x.lo != x.hi || uint64(in.K)+uint64(x.lo) > maxOffset {
		return in
	}
	abs := ins(in.Op&^modeMask|modeAbs, in.K+x.lo)
	if end, _ := loadEnd(abs); abs.Op == opLdH && end > st.minLen && !s.flat {
		return in
	}
	return abs
}

// knownHalf is the offset of a half-word that an index points to which is known.
func (s *specializer) knownHalf(in xbpf.RawInstruction, st pathState) (off uint32, ok bool) {
	x := s.fact(st, st.x)
	sum := uint64(in.K) + uint64(x.lo)
	return uint32(sum), in.Op == opLdIndH && x.lo == x.hi && sum >= 2 && sum <= maxOffset
}

func (s *specializer) execALU(in xbpf.RawInstruction, st *pathState, steps *[]step) (done bool) {
	operand, reads := s.terms.constant(in.K), operandReads(in)
	if reads == regX {
		operand = st.x
	}
	op := in.Op & (classMask | aluMask)
	divides := op&aluMask == aluDiv || op&aluMask == aluMod
	a, b := s.fact(*st, st.a), s.fact(*st, operand)
	if op&aluMask == aluNeg {
		b = fact{}
		operand = s.terms.constant(0)
	}
	if divides && b.lo == b.hi && b.lo == 0 {
		return true
	}
	if a.lo == a.hi && b.lo == b.hi {
		k := alu(op, a.lo, b.lo)
		return s.set(&st.a, s.terms.constant(k), ins(opLdImm, k), false, steps)
	}
	if b.lo == b.hi && neutral(op, b.lo) {
		return false
	}
	mayStop := divides && reads == regX && b.decide(opJeq, 0) != never
	t := term{op: op, a: st.a, b: operand}
	if commutes(op) && s.terms.of[t.a].op == termConst {
		t.a, t.b = t.b, t.a
		if neutral(op, a.lo) {
			return s.set(&st.a, t.a, in, false, steps)
		}
	}
	return s.set(&st.a, s.terms.value(t), in, mayStop, steps)
}

func commutes(op uint16) bool {
	switch op & aluMask {
	case aluAdd, aluMul, aluOr, aluAnd, aluXor:
		return true
	}
	return false
}

// neutral reports whether the operation with k changes nothing.
func neutral(op uint16, k uint32) bool {
	switch op & aluMask {
	case aluAdd, aluSub, aluOr, aluXor, aluLsh, aluRsh:
		return k == 0
	case aluMul, aluDiv:
		return k == 1
	case aluAnd:
		return k == 0xffffffff
	}
	return false
}

// alu computes as both kernels do; shifts count modulo 32.
func alu(op uint16, a, b uint32) uint32 {
	switch op & aluMask {
	case aluAdd:
		return a + b
	case aluSub:
		return a - b
	case aluMul:
		return a * b
	case aluDiv:
		return a / b
	case aluMod:
		return a % b
	case aluOr:
		return a | b
	case aluAnd:
		return a & b
	case aluXor:
		return a ^ b
	case aluLsh:
		return a << (b & 31)
	case aluRsh:
		return a >> (b & 31)
	default:
		return -a
	}
}

// returned is the RET, with its value in it where that is known.
func (s *specializer) returned(last xbpf.RawInstruction, st pathState) xbpf.RawInstruction {
	if last.Op != opRetA {
		return ins(opRetK, last.K)
	}
	if a := s.fact(st, st.a); a.lo == a.hi {
		return ins(opRetK, a.lo)
	}
	return ins(opRetA, 0)
}

// A question is a jump as a test of one value against a constant.
type question struct {
	about value
	jump  uint16
	k     uint32
	last  xbpf.RawInstruction // the jump that asks it
	not   bool                // and goes the other way
}

func (s *specializer) question(last xbpf.RawInstruction, st pathState) question {
	jump := last.Op &^ srcX
	if last.Op&srcX == 0 {
		q := question{about: st.a, jump: jump, k: last.K, last: ins(jump, last.K)}
		t := s.terms.of[st.a]
		minus := t.op == classAlu|aluSub && jump == opJeq
		switch {
		case minus && s.terms.of[t.b].op == termConst: // a - c == k
			q.about, q.k = t.a, last.K+s.terms.of[t.b].k
		case minus && last.K == 0: // a - b == 0
			q.about, q.k = s.comparison(opJeq, t.a, t.b), 1
		case jump == opJeq && last.K == 0 && t.op == opAnd && s.terms.of[t.b].op == termConst: // no bit is set
			q.about, q.jump, q.k, q.not = t.a, opJset, s.terms.of[t.b].k, true
		}
		return q
	}
	if x := s.fact(st, st.x); x.lo == x.hi {
		return question{about: st.a, jump: jump, k: x.lo, last: ins(jump, x.lo)}
	}
	return question{about: s.comparison(jump, st.a, st.x), jump: opJeq, k: 1, last: ins(last.Op, 0)}
}

// comparison is comparing two values as a value of its own, 1 or 0.
func (s *specializer) comparison(jump uint16, a, b value) value {
	if a == b {
		switch jump {
		case opJeq, opJge:
			return s.terms.constant(1)
		case opJgt:
			return s.terms.constant(0)
		}
	}
	if jump == opJeq && a > b {
		a, b = b, a
	}
	return s.terms.value(term{op: termCompare | jump, a: a, b: b})
}

// fact is what is known about v.
func (s *specializer) fact(st pathState, v value) fact {
	if i, ok := findFact(st.facts, v); ok {
		return st.facts[i]
	}
	return s.terms.outset(v)
}

func findFact(facts []fact, v value) (int, bool) {
	return slices.BinarySearchFunc(facts, v, func(f fact, v value) int { return int(f.about) - int(v) })
}

// answer is what the facts say to a question.
func (s *specializer) answer(st pathState, q question) decision {
	d := s.fact(st, q.about).decide(q.jump, q.k)
	if q.not && d != open {
		return decided(d == never)
	}
	return d
}

// learn is st after a question has been answered.
func (s *specializer) learn(st pathState, q question, yes bool) pathState {
	f := s.fact(st, q.about).learn(q.jump, q.k, yes != q.not)
	i, found := findFact(st.facts, q.about)
	facts := append(make([]fact, 0, len(st.facts)+1), st.facts...)
	if found {
		facts[i] = f
	} else {
		facts = slices.Insert(facts, i, f)
	}
	st.facts = facts
	return st
}

// forgetAddresses leaves out facts about whole words of the frame.
func (s *specializer) forgetAddresses(facts []fact) []fact {
	var kept []fact
	for _, f := range facts {
		if t := s.terms.of[f.about]; t.op != opLdW || t.k >= skfLLOff {
			kept = append(kept, f)
		}
	}
	return kept
}

// restrict leaves out of a state what cannot matter from b on, so that paths
// which differ only in that share their code.
func (s *specializer) restrict(b *block, st pathState) pathState {
	reach := s.walked[b]
	keep := func(reg regs, v value) value {
		if reach.live&reg != 0 || s.terms.loads[v].meets(reach.loads) {
			return v
		}
		return s.terms.value(term{op: termUnread})
	}
	st.a, st.x = keep(regA, st.a), keep(regX, st.x)
	for i, v := range st.mem {
		st.mem[i] = keep(regM(uint32(i)), v)
	}
	st.minLen = min(st.minLen, reach.end)

	kept := st.facts[:0:0]
	for _, f := range st.facts {
		if s.terms.loads[f.about].meets(reach.loads) || st.holds(f.about, s.terms) {
			kept = append(kept, f)
		}
	}
	st.facts = kept
	return st
}

// holds reports whether a register has the value, or one made of it.
func (st *pathState) holds(v value, t *terms) bool {
	has := func(reg value) bool {
		return reg == v || t.of[reg].op > termConst && (t.of[reg].a == v || t.of[reg].b == v)
	}
	return has(st.a) || has(st.x) || slices.ContainsFunc(st.mem[:], has)
}

// stateKey appends to a key what is equal for equal blocks and states.
func (s *specializer) stateKey(key []byte, b *block, st pathState) []byte {
	put := func(w uint32) { key = binary.LittleEndian.AppendUint32(key, w) }
	put(s.walked[b].id)
	put(uint32(st.a))
	put(uint32(st.x))
	for _, v := range st.mem {
		put(uint32(v))
	}
	put(st.minLen)
	for _, f := range st.facts {
		key = f.key(key)
	}
	return key
}

// contentKey appends to a key what is equal for blocks that do the same; those of the
// scope differ by where they come from.
func (s *specializer) contentKey(key []byte, b, origin *block) []byte {
	put := func(in xbpf.RawInstruction) {
		key = binary.LittleEndian.AppendUint16(key, in.Op)
		key = binary.LittleEndian.AppendUint32(key, in.K)
	}
	for _, in := range b.body {
		put(in)
	}
	put(b.last)
	if !b.returns() {
		key = binary.LittleEndian.AppendUint32(key, s.made[b.yes].id)
		key = binary.LittleEndian.AppendUint32(key, s.made[b.no].id)
	}
	if b.scope && origin != nil {
		key = binary.LittleEndian.AppendUint32(key, s.walked[origin].id)
	}
	return key
}
