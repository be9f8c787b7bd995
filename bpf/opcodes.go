package bpf

// The fields of an opcode and their values: linux/bpf_common.h, and net/bpf.h
// on FreeBSD; both systems use the numbers of the 1993 paper.
const (
	classMask = 0x07
	classLd   = 0x00
	classLdx  = 0x01
	classSt   = 0x02
	classStx  = 0x03
	classAlu  = 0x04
	classJmp  = 0x05
	classRet  = 0x06
	classMisc = 0x07

	sizeMask = 0x18
	sizeW    = 0x00
	sizeH    = 0x08
	sizeB    = 0x10

	modeMask = 0xe0
	modeImm  = 0x00
	modeAbs  = 0x20
	modeInd  = 0x40
	modeMem  = 0x60
	modeLen  = 0x80
	modeMsh  = 0xa0

	aluMask = 0xf0
	aluAdd  = 0x00
	aluSub  = 0x10
	aluMul  = 0x20
	aluDiv  = 0x30
	aluOr   = 0x40
	aluAnd  = 0x50
	aluLsh  = 0x60
	aluRsh  = 0x70
	aluNeg  = 0x80
	aluMod  = 0x90
	aluXor  = 0xa0

	jmpMask = 0xf0
	jmpJa   = 0x00
	jmpJeq  = 0x10
	jmpJgt  = 0x20
	jmpJge  = 0x30
	jmpJset = 0x40

	srcK    = 0x00
	srcX    = 0x08
	retSrcA = 0x10 // BPF_RVAL: what a RET returns

	miscTax = 0x00
	miscTxa = 0x80
)

// Whole opcodes that the code generators use.
const (
	opLdW    = classLd | modeAbs | sizeW
	opLdH    = classLd | modeAbs | sizeH
	opLdB    = classLd | modeAbs | sizeB
	opLdIndW = classLd | modeInd | sizeW
	opLdIndH = classLd | modeInd | sizeH
	opLdIndB = classLd | modeInd | sizeB
	opLdLen  = classLd | modeLen
	opLdxLen = classLdx | modeLen
	opLdxMsh = classLdx | modeMsh | sizeB
	opLdImm  = classLd | modeImm
	opLdxImm = classLdx | modeImm
	opLdMem  = classLd | modeMem
	opLdxMem = classLdx | modeMem
	opSt     = classSt
	opStx    = classStx
	opAdd    = classAlu | aluAdd
	opAnd    = classAlu | aluAnd
	opJa     = classJmp | jmpJa
	opJeq    = classJmp | jmpJeq
	opJgt    = classJmp | jmpJgt
	opJge    = classJmp | jmpJge
	opJset   = classJmp | jmpJset
	opRetK   = classRet
	opRetA   = classRet | retSrcA
	opTax    = classMisc | miscTax
	opTxa    = classMisc | miscTxa
)

// memWords is the number of cells of M[], the scratch memory (BPF_MEMWORDS).
const memWords = 16

// Where Linux keeps what is not in the frame: negative offsets of absolute
// loads (linux/filter.h). FreeBSD knows none of them.
const (
	skfAdOff  = 0xfffff000 // SKF_AD_OFF, -0x1000: the packet's metadata
	skfNetOff = 0xfff00000 // SKF_NET_OFF, -0x100000: from the network header
	skfLLOff  = 0xffe00000 // SKF_LL_OFF, -0x200000: from the link header

	adProtocol   = skfAdOff + 0  // skb->protocol, host byte order
	adPktType    = skfAdOff + 4  // skb->pkt_type, PACKET_HOST...
	adIfindex    = skfAdOff + 8  // skb->dev->ifindex
	adNlattr     = skfAdOff + 12 // first netlink attribute of type X from offset A
	adNlattrNest = skfAdOff + 16
	adMark       = skfAdOff + 20
	adQueue      = skfAdOff + 24
	adHatype     = skfAdOff + 28 // skb->dev->type, ARPHRD_*
	adRxhash     = skfAdOff + 32
	adCPU        = skfAdOff + 36
	adAluXorX    = skfAdOff + 40 // A ^= X
	adVlanTag    = skfAdOff + 44 // TCI of the tag in metadata, 0 if none
	adVlanTagged = skfAdOff + 48 // SKF_AD_VLAN_TAG_PRESENT, 1 or 0
	adPayOff     = skfAdOff + 52 // offset of the transport payload
	adRandom     = skfAdOff + 56
	adVlanTPID   = skfAdOff + 60 // TPID of the tag in metadata, host byte order
	adMax        = skfAdOff + 64
)
