package ebpf

import (
	"errors"
	"fmt"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"jailtap/bpf"
)

// Slot is the map with the user's program of a captive socket: a program array
// of one. While it is empty the user's filter is "everything in scope".
const Slot = "slot"

// Place is the map with the place of a captive socket in the kernel, 8 bytes in the
// CPU's byte order: an array of one.
const Place = "place"

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
//
// It needs Linux 6.2 with BTF; else the error is errors.ErrUnsupported.
func Captive(s bpf.Scope, c Capacity) (*cilium.CollectionSpec, error) {
	layout, err := theLayout()
	if err != nil {
		return nil, fmt.Errorf("captive sockets need Linux 6.2 with BTF (CONFIG_DEBUG_INFO_BTF): %w: %w", errors.ErrUnsupported, err)
	}
	g := scopeCode{v: bpf.LinuxSLL2, s: s, capacity: c, direct: layout}
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
	maps[Place] = &cilium.MapSpec{Name: Place, Type: cilium.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}
	return g.collection(maps)
}

// noTagLost emits: goto out if the frame may have had a VLAN tag that is not there any
// more. Frames of VLANs that this host does not know lose their tags, and are marked as
// another host's, before they come to sockets that are bound for one protocol
// (__netif_receive_skb_core of net/core/dev.c). On these another host's frames, which
// are there on promiscuous interfaces only, cannot be told from them.
func (g *scopeCode) noTagLost() {
	const otherHost, all = 3, 3 // PACKET_OTHERHOST of linux/if_packet.h, ETH_P_ALL of linux/if_ether.h
	none := g.newLabel()
	g.emit(
		asm.LoadMem(asm.R1, regCtx, skbPktType, asm.Word),
		asm.JNE.Imm32(asm.R1, otherHost, none),
		asm.LoadMapValue(asm.R1, 0, 0).WithReference(Place),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord),
		asm.Add.Imm(asm.R1, int32(g.direct.boundFor)))
	g.direct.read(&g.code)
	g.loadNet16(asm.R1, asm.R0, memoryStart, asm.Half)
	g.emit(asm.JNE.Imm32(asm.R1, all, "out"))
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
