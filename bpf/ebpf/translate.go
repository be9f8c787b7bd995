package ebpf

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
)

// An Error says which instruction of a classic program has no translation, and
// why.
type Error struct {
	Index  int // of the instruction, from 0
	Ins    xbpf.RawInstruction
	Reason string
}

func (e *Error) Error() string {
	return fmt.Sprintf("no eBPF for instruction %d (%#02x %d %d %#x): %s",
		e.Index, e.Ins.Op, e.Ins.Jt, e.Ins.Jf, e.Ins.K, e.Reason)
}

// Translate makes the eBPF program that gives the verdicts of p, as Linux's
// classic BPF does, to socket filters and to tc programs. A load past the end
// of the frame returns 0; M[] is all zeros at start; shift counts are taken
// modulo 32. Instructions that nothing leads to are left out, since the
// verifier does not take them.
//
// The error is an [*Error], or says that the program is too long.
func Translate(p bpf.Program) (asm.Instructions, error) {
	var c code
	c.emit(asm.Mov.Reg(regCtx, asm.R1))
	if err := c.user(p, asm.Return()); err != nil {
		return nil, err
	}
	return c.finish()
}

// Fields of classic opcodes that eBPF has given another meaning (linux/bpf_common.h).
// The rest have the places and the values that they have in package asm.
const (
	classRet  = 0x06
	classMisc = 0x07
	modeImm   = 0x00
	modeLen   = 0x80
	modeMsh   = 0xa0
	retA      = classRet | 0x10
	tax       = classMisc
	txa       = classMisc | 0x80

	opMask = 0xf0 // of arithmetic and jumps
	srcX   = 0x08

	cells      = 16   // M[0] to M[15], 4 bytes each
	stackCells = -128 // on the stack, where scopes have nothing
)

// user emits p, with R0 as verdict and then leave wherever p returns.
func (c *code) user(p bpf.Program, leave asm.Instruction) error {
	if len(p) == 0 {
		c.emit(asm.Mov.Imm32(asm.R0, -1), leave) // bpf.KeepAll
		return nil
	}
	flow, err := follow(p)
	if err != nil {
		return err
	}
	c.emit(asm.Mov.Imm32(regA, 0), asm.Mov.Imm32(regX, 0))
	for k := range uint32(cells) {
		if flow.unset&(1<<k) != 0 {
			c.emit(asm.StoreImm(asm.RFP, cell(k), 0, asm.Word))
		}
	}
	t := translation{c, p, leave}
	for i := range p {
		if !flow.reached[i] {
			continue
		}
		if flow.target[i] {
			c.label(insLabel(i))
		}
		if reason := t.instruction(i); reason != "" {
			return &Error{i, p[i], reason}
		}
	}
	return nil
}

func insLabel(i int) string { return fmt.Sprintf("user%d", i) }

func cell(k uint32) int16 { return stackCells - 4*cells + int16(4*k) }

// flow is what there is to know of a program before it is translated.
type flow struct {
	reached []bool // by some path from the start
	target  []bool // of a jump
	unset   uint16 // cells of M[] that some path reads before it has written them
}

// follow walks p from the start. Jumps only lead forward, so that one pass in
// order has seen all ways to an instruction when it comes to it.
func follow(p bpf.Program) (flow, error) {
	f := flow{reached: make([]bool, len(p)), target: make([]bool, len(p))}
	written := make([]uint16, len(p)) // cells written on every path to the instruction
	f.reached[0] = true
	for i, ins := range p {
		if !f.reached[i] {
			continue
		}
		set := written[i]
		switch op := asm.OpCode(ins.Op); {
		case ins.K >= cells: // of M[], if it is about that: an error later
		case op.Class() == asm.StClass, op.Class() == asm.StXClass:
			set |= 1 << ins.K
		case op.Class().IsLoad() && op.Mode() == asm.MemMode && set&(1<<ins.K) == 0:
			f.unset |= 1 << ins.K
		}
		for _, hop := range hops(ins) {
			to := uint64(i) + 1 + uint64(hop)
			if to >= uint64(len(p)) {
				return flow{}, &Error{i, ins, fmt.Sprintf("leads to instruction %d of %d", to, len(p))}
			}
			if !f.reached[to] {
				f.reached[to], written[to] = true, set
			}
			written[to] &= set
			f.target[to] = f.target[to] || asm.OpCode(ins.Op).Class() == asm.JumpClass
		}
	}
	return f, nil
}

// hops is how many instructions ins may skip.
func hops(ins xbpf.RawInstruction) []uint32 {
	switch {
	case ins.Op&7 == classRet:
		return nil
	case ins.Op == uint16(asm.JumpClass): // ja
		return []uint32{ins.K}
	case ins.Op&7 == uint16(asm.JumpClass):
		return []uint32{uint32(ins.Jt), uint32(ins.Jf)}
	}
	return []uint32{0}
}

// A translation emits the instructions of p, or says why it cannot.
type translation struct {
	*code
	p     bpf.Program
	leave asm.Instruction
}

func (t translation) instruction(i int) (reason string) {
	ins := t.p[i]
	known := ins.Op <= 0xff
	switch op := asm.OpCode(ins.Op); {
	case !known:
	case op.Class() == asm.LdClass:
		return t.ld(ins)
	case op.Class() == asm.LdXClass:
		return t.ldx(ins)
	case op == asm.OpCode(asm.StClass):
		return t.memory(ins.K, func(off int16) { t.emit(asm.StoreMem(asm.RFP, off, regA, asm.Word)) })
	case op == asm.OpCode(asm.StXClass):
		return t.memory(ins.K, func(off int16) { t.emit(asm.StoreMem(asm.RFP, off, regX, asm.Word)) })
	case op.Class() == asm.ALUClass:
		return t.alu(ins)
	case op.Class() == asm.JumpClass:
		return t.jump(i)
	case ins.Op == classRet:
		t.emit(asm.Mov.Imm32(asm.R0, int32(ins.K)), t.leave)
	case ins.Op == retA:
		t.emit(asm.Mov.Reg32(asm.R0, regA), t.leave)
	case ins.Op == tax:
		t.emit(asm.Mov.Reg32(regX, regA))
	case ins.Op == txa:
		t.emit(asm.Mov.Reg32(regA, regX))
	default:
		known = false
	}
	if !known {
		return "unknown opcode"
	}
	return ""
}

func (t translation) ld(ins xbpf.RawInstruction) string {
	op := asm.OpCode(ins.Op)
	word := op.Size() == asm.Word
	switch mode := op.Mode(); {
	case op.Size() == asm.DWord:
		return "unknown opcode"
	case mode == asm.AbsMode && ins.K >= adOff:
		return t.ancillary(ins.K)
	case mode == asm.AbsMode:
		t.loadAbs(regA, ins.K, op.Size())
	case mode == asm.IndMode: // the kernel takes the sum for a 32-bit number: it wraps
		t.emit(asm.LoadInd(asm.R0, regX, int32(ins.K), op.Size()), asm.Mov.Reg32(regA, asm.R0))
	case word && mode == modeImm:
		t.emit(asm.Mov.Imm32(regA, int32(ins.K)))
	case word && mode == modeLen:
		t.emit(asm.LoadMem(regA, regCtx, skbLen, asm.Word))
	case word && mode == asm.MemMode:
		return t.memory(ins.K, func(off int16) { t.emit(asm.LoadMem(regA, asm.RFP, off, asm.Word)) })
	default:
		return "unknown opcode"
	}
	return ""
}

// loadAbs emits dst = what is at offset k of the frame.
func (t translation) loadAbs(dst asm.Register, k uint32, size asm.Size) {
	at, bytes := int64(t.stackFrame())+int64(k), int64(size.Sizeof())
	if at+bytes > 0 || at%bytes != 0 { // not there, or not where the verifier lets it be loaded from
		t.emit(asm.LoadAbs(int32(k), size), asm.Mov.Reg32(dst, asm.R0))
		return
	}
	t.emit(asm.LoadMem(dst, asm.RFP, int16(at), size))
	if size != asm.Byte {
		t.emit(asm.HostTo(asm.BE, dst, size))
	}
}

func (t translation) ldx(ins xbpf.RawInstruction) string {
	switch op := asm.OpCode(ins.Op); {
	case op.Size() == asm.Byte && op.Mode() == modeMsh: // X = 4 * (frame[k] & 15)
		t.loadAbs(regX, ins.K, asm.Byte)
		t.emit(
			asm.And.Imm32(regX, 15),
			asm.LSh.Imm32(regX, 2),
		)
	case op.Size() != asm.Word:
		return "unknown opcode"
	case op.Mode() == modeImm:
		t.emit(asm.Mov.Imm32(regX, int32(ins.K)))
	case op.Mode() == modeLen:
		t.emit(asm.LoadMem(regX, regCtx, skbLen, asm.Word))
	case op.Mode() == asm.MemMode:
		return t.memory(ins.K, func(off int16) { t.emit(asm.LoadMem(regX, asm.RFP, off, asm.Word)) })
	default:
		return "unknown opcode"
	}
	return ""
}

func (t translation) memory(k uint32, emit func(off int16)) string {
	if k >= cells {
		return fmt.Sprintf("M[%d] does not exist: M has %d cells", k, cells)
	}
	emit(cell(k))
	return ""
}

// alu emits arithmetic on A, 32 bits wide. The opcodes are eBPF's own.
func (t translation) alu(ins xbpf.RawInstruction) string {
	op, k := asm.ALUOp(ins.Op&opMask), int32(ins.K)
	divides := op == asm.Div || op == asm.Mod
	switch x := ins.Op&srcX != 0; {
	case op == asm.Neg && !x:
		t.emit(asm.Instruction{OpCode: asm.Neg.Op32(asm.ImmSource), Dst: regA})
	case op >= asm.Neg && op != asm.Mod && op != asm.Xor:
		return "unknown opcode"
	case x && divides: // by 0 returns 0
		ok := t.newLabel()
		t.emit(asm.JNE.Imm32(regX, 0, ok), asm.Mov.Imm32(asm.R0, 0), t.leave)
		t.label(ok)
		t.emit(op.Reg32(regA, regX))
	case x: // shift counts lose all but their low 5 bits
		t.emit(op.Reg32(regA, regX))
	case divides && k == 0:
		return "division by 0"
	case op == asm.LSh || op == asm.RSh:
		t.emit(op.Imm32(regA, k&31))
	default:
		t.emit(op.Imm32(regA, k))
	}
	return ""
}

// unless is the jump that is taken when the other is not.
var unless = map[asm.JumpOp]asm.JumpOp{asm.JEq: asm.JNE, asm.JGT: asm.JLE, asm.JGE: asm.JLT}

func (t translation) jump(i int) string {
	ins := t.p[i]
	op := asm.JumpOp(ins.Op & opMask)
	onTrue, onFalse := insLabel(i+1+int(ins.Jt)), insLabel(i+1+int(ins.Jf))
	branch := func(op asm.JumpOp, to string) {
		if ins.Op&srcX != 0 {
			t.emit(op.Reg32(regA, regX, to))
		} else {
			t.emit(op.Imm32(regA, int32(ins.K), to))
		}
	}
	inverse, invertible := unless[op]
	switch {
	case ins.Op == uint16(asm.JumpClass):
		t.hop(i, ins.K)
	case !invertible && op != asm.JSet:
		return "unknown opcode"
	case ins.Jt == ins.Jf:
		t.hop(i, uint32(ins.Jt))
	case ins.Jt == 0 && invertible:
		branch(inverse, onFalse)
	default:
		branch(op, onTrue)
		t.hop(i, uint32(ins.Jf))
	}
	return ""
}

// hop emits a jump over n instructions of the classic program.
func (t translation) hop(i int, n uint32) {
	if n != 0 {
		t.emit(asm.Ja.Label(insLabel(i + 1 + int(n))))
	}
}
