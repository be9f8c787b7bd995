package bpf

import "math"

// A VM is the reference interpreter: what a system does with a program and a
// packet. The zero VM is Linux.
type VM struct {
	Dialect Dialect

	// Receive is FreeBSD's path for packets that a bpf(4) device captures: the
	// packet is a chain of mbufs, of which this VM knows the case that the
	// chain is one mbuf. Without it, FreeBSD means a packet in a flat buffer,
	// as for write filters and in libpcap. The paths differ in two things:
	// here a ldh [k] behind the end loads 0 and the program goes on (bpf_filter
	// does not look at m_xhalf's error), and X + k wraps at 2^32.
	Receive bool
}

// A Packet is what a program runs on.
type Packet struct {
	Data    []byte // what is there of the packet
	WireLen uint32 // the packet's length in bytes, at least that of Data
	Meta    Metadata
}

// Run gives the verdict of p, which must be valid for the VM's dialect: how
// many bytes of the packet to keep, 0 to reject it. An empty p keeps all.
// Run ends for every p, also for one that is not valid.
func (vm VM) Run(p Program, pkt Packet) uint32 {
	verdict, _ := vm.Count(p, pkt)
	return verdict
}

// Count is Run that also says how many instructions were executed.
func (vm VM) Count(p Program, pkt Packet) (verdict uint32, executed int) {
	if len(p) == 0 {
		return KeepAll, 0
	}
	linux := vm.Dialect == Linux
	var a, x uint32
	var mem [memWords]uint32
	for pc := uint64(0); pc < uint64(len(p)); { // pc only grows
		ins := p[pc]
		k := ins.K
		jump := false
		pc++
		executed++
		switch ins.Op {
		case opLdW, opLdH, opLdB:
			if linux && k >= skfAdOff {
				if (k == adIfindex || k == adHatype) && !pkt.Meta.hasDevice() {
					return a, executed
				}
				a = pkt.ancillary(k, a, x)
				break
			}
			v, ok := fetch(pkt.Data, ins.Op, vm.offset(&pkt.Meta, 0, k))
			if !ok && (linux || !vm.Receive || ins.Op != opLdH) {
				return 0, executed
			}
			a = v
		case opLdIndW, opLdIndH, opLdIndB:
			v, ok := fetch(pkt.Data, ins.Op, vm.offset(&pkt.Meta, x, k))
			if !ok {
				return 0, executed
			}
			a = v
		case opLdxMsh:
			v, ok := fetch(pkt.Data, ins.Op, vm.offset(&pkt.Meta, 0, k))
			if !ok {
				return 0, executed
			}
			x = (v & 0xf) << 2
		case opLdLen:
			a = pkt.WireLen
		case opLdxLen:
			x = pkt.WireLen
		case opLdImm:
			a = k
		case opLdxImm:
			x = k
		case opLdMem:
			a = mem[k%memWords]
		case opLdxMem:
			x = mem[k%memWords]
		case opSt:
			mem[k%memWords] = a
		case opStx:
			mem[k%memWords] = x

		case classAlu | aluAdd:
			a += k
		case classAlu | aluAdd | srcX:
			a += x
		case classAlu | aluSub:
			a -= k
		case classAlu | aluSub | srcX:
			a -= x
		case classAlu | aluMul:
			a *= k
		case classAlu | aluMul | srcX:
			a *= x
		case classAlu | aluDiv:
			if k == 0 {
				return 0, executed
			}
			a /= k
		case classAlu | aluDiv | srcX:
			if x == 0 {
				return 0, executed
			}
			a /= x
		case classAlu | aluMod:
			if k == 0 {
				return 0, executed
			}
			a %= k
		case classAlu | aluMod | srcX:
			if x == 0 {
				return 0, executed
			}
			a %= x
		case classAlu | aluAnd:
			a &= k
		case classAlu | aluAnd | srcX:
			a &= x
		case classAlu | aluOr:
			a |= k
		case classAlu | aluOr | srcX:
			a |= x
		case classAlu | aluXor:
			a ^= k
		case classAlu | aluXor | srcX:
			a ^= x
		// C leaves shifts by 32 and more undefined; x86 and arm64 take the
		// count modulo 32.
		case classAlu | aluLsh:
			a <<= k % 32
		case classAlu | aluLsh | srcX:
			a <<= x % 32
		case classAlu | aluRsh:
			a >>= k % 32
		case classAlu | aluRsh | srcX:
			a >>= x % 32
		case classAlu | aluNeg:
			a = -a

		case opJa:
			pc += uint64(k)
		case opJeq:
			jump = a == k
		case opJeq | srcX:
			jump = a == x
		case opJgt:
			jump = a > k
		case opJgt | srcX:
			jump = a > x
		case opJge:
			jump = a >= k
		case opJge | srcX:
			jump = a >= x
		case opJset:
			jump = a&k != 0
		case opJset | srcX:
			jump = a&x != 0

		case opRetK:
			return k, executed
		case opRetA:
			return a, executed
		case opTax:
			x = a
		case opTxa:
			a = x
		default:
			return 0, executed
		}
		if isBranch(ins.Op) {
			if jump {
				pc += uint64(ins.Jt)
			} else {
				pc += uint64(ins.Jf)
			}
		}
	}
	return 0, executed
}

// offset is where in the packet's data a load of X + k starts, which may be
// behind the end.
func (vm VM) offset(m *Metadata, x, k uint32) uint64 {
	switch {
	case vm.Dialect == Linux:
		return m.offset(x + k)
	case vm.Receive:
		return uint64(x + k)
	default:
		return uint64(x) + uint64(k)
	}
}

// nowhere is an offset behind the end of every packet.
const nowhere = math.MaxUint64

// fetch reads what a load with this opcode's size finds at off, big-endian; 0
// if that is not all there.
func fetch(data []byte, op uint16, off uint64) (value uint32, ok bool) {
	width := uint64(loadWidth(op))
	if size := uint64(len(data)); off > size || size-off < width {
		return 0, false
	}
	for _, b := range data[off : off+width] {
		value = value<<8 | uint32(b)
	}
	return value, true
}
