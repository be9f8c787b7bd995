package ebpf

import "github.com/cilium/ebpf/asm"

// Offsets of absolute loads that stand for the packet's metadata (SKF_AD_* of
// linux/filter.h).
const (
	adOff        = 0xfffff000 // SKF_AD_OFF
	adProtocol   = adOff + 0
	adPktType    = adOff + 4
	adIfindex    = adOff + 8
	adNlattr     = adOff + 12
	adNlattrNest = adOff + 16
	adMark       = adOff + 20
	adQueue      = adOff + 24
	adHatype     = adOff + 28
	adRxhash     = adOff + 32
	adCPU        = adOff + 36
	adAluXorX    = adOff + 40
	adVlanTag    = adOff + 44
	adVlanTagged = adOff + 48
	adPayOff     = adOff + 52
	adRandom     = adOff + 56
	adVlanTPID   = adOff + 60
)

var (
	// ancillaryFields are those that struct __sk_buff has too.
	ancillaryFields = map[uint32]int16{
		adPktType: skbPktType, adIfindex: skbIfindex, adMark: skbMark, adQueue: skbQueue,
		adRxhash: skbHash, adVlanTag: skbVlanTCI, adVlanTagged: skbVlanPresent,
	}

	// ancillaryNet16 are those that it has in network byte order.
	ancillaryNet16 = map[uint32]int16{adProtocol: skbProtocol, adVlanTPID: skbVlanProto}

	ancillaryCalls = map[uint32]asm.BuiltinFunc{
		adCPU: asm.FnGetSmpProcessorId, adRandom: asm.FnGetPrandomU32,
	}

	// ancillaryNone are those that eBPF has no counterpart of.
	ancillaryNone = map[uint32]string{
		adHatype: "hatype", adNlattr: "nlattr", adNlattrNest: "nlattr_nest", adPayOff: "payload offset",
	}
)

// ancillary emits A = the metadata at offset k.
func (t translation) ancillary(k uint32) string {
	if off, ok := ancillaryFields[k]; ok {
		t.emit(asm.LoadMem(regA, regCtx, off, asm.Word))
		return ""
	}
	if off, ok := ancillaryNet16[k]; ok {
		t.loadNet16(regA, regCtx, off, asm.Word)
		return ""
	}
	if call, ok := ancillaryCalls[k]; ok {
		t.emit(call.Call(), asm.Mov.Reg32(regA, asm.R0))
		return ""
	}
	if k == adAluXorX {
		t.emit(asm.Xor.Reg32(regA, regX))
		return ""
	}
	if name, ok := ancillaryNone[k]; ok {
		return "eBPF programs cannot read the " + name + "; classic ones can"
	}
	return "unknown metadata"
}
