package ebpf

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// Registers. R0 holds results of calls and the verdict, R1 to R5 are lost with
// each call and each load from the frame.
const (
	regCtx      = asm.R6 // struct __sk_buff *, where LD_ABS and LD_IND want it
	regCounters = asm.R9 // struct Counters *

	regA = asm.R7 // in the user's program
	regX = asm.R8

	regProto = asm.R7 // in the scope's: EtherType, host byte order
	regNet   = asm.R8 // offset in bytes of what follows the EtherType
)

// Offsets into struct __sk_buff (linux/bpf.h). All fields are 32 bits wide;
// protocol and vlan_proto hold 16 bits in network byte order.
const (
	skbLen         = 0
	skbPktType     = 4
	skbMark        = 8
	skbQueue       = 12
	skbProtocol    = 16
	skbVlanPresent = 20
	skbVlanTCI     = 24
	skbVlanProto   = 28
	skbIfindex     = 40
	skbHash        = 68
)

// code is a program being written.
type code struct {
	insns  asm.Instructions
	symbol string // of the next instruction
	fresh  int    // labels made up so far

	// copied is how many bytes of the frame's start are on the stack, at stackFrame; each
	// of them is one less to call the kernel for.
	copied int16
}

func (c *code) emit(insns ...asm.Instruction) {
	for _, ins := range insns {
		if c.symbol != "" {
			ins = ins.WithSymbol(c.symbol)
			c.symbol = ""
		}
		c.insns = append(c.insns, ins)
	}
}

// label names the next instruction.
func (c *code) label(name string) {
	if c.symbol != "" { // an instruction has one name: goto +0
		c.emit(asm.Instruction{OpCode: asm.Ja.Op(asm.ImmSource)})
	}
	c.symbol = name
}

// stackFrame is where the frame's start is on the stack.
func (c *code) stackFrame() int16 { return -c.copied }

// newLabel is a name that no other instruction has.
func (c *code) newLabel() string {
	c.fresh++
	return fmt.Sprintf(".%d", c.fresh)
}

// loadNet16 emits dst = ntohs(*(u16 *)(base + off)).
func (c *code) loadNet16(dst, base asm.Register, off int16, size asm.Size) {
	c.emit(
		asm.LoadMem(dst, base, off, size),
		asm.HostTo(asm.BE, dst, asm.Half),
	)
}

// verdict emits return k.
func (c *code) verdict(k uint32) {
	c.emit(asm.Mov.Imm32(asm.R0, int32(k)), asm.Return())
}

// finish checks that every jump, of 16 bits, reaches its target.
func (c *code) finish() (asm.Instructions, error) {
	const reach = 1<<15 - 1
	if n := c.insns.Size() / asm.InstructionSize; n > reach {
		return nil, fmt.Errorf("program too long: %d eBPF instructions, jumps reach over %d", n, reach)
	}
	return c.insns, nil
}
