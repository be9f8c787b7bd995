package ebpf

import (
	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"jailtap/bpf"
)

// Slot is the map with the user's program of a captive socket: a program array
// of one. While it is empty the user's filter is "everything in scope".
const Slot = "slot"

// Captive is the program for a socket that is handed to whom it must hold
// captive. It is attached once and locked; addresses, and the user's program
// behind it, change in the maps. Of s only the policy and the VLANs matter
// here.
//
// The holder may bind the socket to whichever interface, so the program looks
// at nothing that is different on the next one: the protocol and the packet
// type are the kernel's, and addresses are loaded relative to the network
// header. A frame for many is known by its packet type: those that this host
// sends are in scope by their addresses only, which is stricter than
// bpf.Scope.Match on Ethernet.
func Captive(s bpf.Scope, c Capacity) (*cilium.CollectionSpec, error) {
	g := scopeCode{v: bpf.LinuxSLL2, s: s, capacity: c, relative: true}
	g.start()
	g.emit(
		asm.LoadMapValue(asm.R1, 0, 0).WithReference(Flags),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.JSet.Imm32(asm.R1, FlagRevoked, "out"))
	g.noTagLost()
	g.scope()
	g.count(1)
	g.emit(
		asm.Mov.Reg(asm.R1, regCtx),
		asm.LoadMapPtr(asm.R2, 0).WithReference(Slot),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call())
	g.count(2) // only where there is no program in the slot
	g.verdict(bpf.KeepAll)

	maps := g.maps()
	maps[Slot] = &cilium.MapSpec{Name: Slot, Type: cilium.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	return g.collection(maps)
}

// noTagLost emits: goto out if the frame had a VLAN tag on this interface that is
// not there any more: see tags in loader/guard.bpf.c.
func (g *scopeCode) noTagLost() {
	none := g.newLabel()
	g.emit(
		asm.LoadMem(asm.R1, regCtx, skbTCIndex, asm.Word),
		asm.JEq.Imm32(asm.R1, 0, none),
		asm.LoadMem(asm.R2, regCtx, skbVlanPresent, asm.Word),
		asm.JNE.Imm32(asm.R2, 0, none),
		asm.LoadMem(asm.R2, regCtx, skbIfindex, asm.Word),
		asm.And.Imm32(asm.R2, 0xffff), // tc_index has 16 bits
		asm.JEq.Reg32(asm.R1, asm.R2, "out"))
	g.label(none)
}

// User is the program for a captive socket's slot. user is about what such a
// socket shows, as libpcap attaches it to a live one.
func User(user bpf.Program) (*cilium.CollectionSpec, error) {
	var c code
	c.registers()
	if err := c.userThenCounted(user); err != nil {
		return nil, err
	}
	return c.collection(map[string]*cilium.MapSpec{})
}
