package ebpf

import (
	"fmt"
	"sync"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// A layout is what one must know of a kernel to read its structures, by pointers.
// Frames are read so since a call costs more than all the rest of a scope's test, where
// returns are slowed down for the sake of the CPU's safety.
type layout struct {
	// Offsets in bytes into struct sk_buff; tail and networkHeader are themselves
	// offsets from head.
	head, tail, networkHeader int16
	// Offset in bytes into struct packet_sock, of what it is bound for: an EtherType or
	// ETH_P_ALL, in network order.
	boundFor int16
	// Functions of kernel/bpf/helpers.c (Linux 6.2) that the verifier turns into moves.
	castContext, castReadOnly btf.TypeID
	// A type with bytes from offset 8 on.
	memory btf.TypeID
}

const (
	memoryType  = "__kernel_sockaddr_storage"
	memoryStart = 8 // what comes before is not only bytes
	memoryLen   = 128
)

// theLayout is of the running kernel.
var theLayout = sync.OnceValues(func() (*layout, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	l, err := layoutOf(kernel)
	if err != nil {
		return nil, err
	}
	return l, l.try()
})

// Prepare finds out how the kernel's structures are, which takes some 30 ms once.
// Programs that are made before it is done wait for it.
func Prepare() { go theLayout() }

func layoutOf(kernel *btf.Spec) (*layout, error) {
	var l layout
	var skb, socket, memory *btf.Struct
	var castContext, castReadOnly *btf.Func
	for name, typ := range map[string]any{
		"sk_buff": &skb, "packet_sock": &socket, memoryType: &memory, "bpf_cast_to_kern_ctx": &castContext, "bpf_rdonly_cast": &castReadOnly,
	} {
		if err := kernel.TypeByName(name, typ); err != nil {
			return nil, err
		}
	}
	for id, typ := range map[*btf.TypeID]btf.Type{&l.memory: memory, &l.castContext: castContext, &l.castReadOnly: castReadOnly} {
		var err error
		if *id, err = kernel.TypeID(typ); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		in   *btf.Struct
		name string
		size int
		to   *int16
	}{{skb, "head", 8, &l.head}, {skb, "tail", 4, &l.tail}, {skb, "network_header", 2, &l.networkHeader}, {socket, "num", 2, &l.boundFor}} {
		at, size, ok := field(f.in.Members, f.name)
		if !ok || size != f.size {
			return nil, fmt.Errorf("struct %s of this kernel has no %s of %d bytes", f.in.Name, f.name, f.size)
		}
		*f.to = int16(at)
	}
	return &l, nil
}

// field finds a member, also in anonymous structs and unions.
func field(members []btf.Member, name string) (at, size int, ok bool) {
	for _, m := range members {
		if m.Name == name {
			size, err := btf.Sizeof(m.Type)
			return int(m.Offset.Bytes()), size, err == nil
		}
		if at, size, ok := field(parts(m), name); ok {
			return int(m.Offset.Bytes()) + at, size, true
		}
	}
	return 0, 0, false
}

// parts are the members of an anonymous member; those of struct_group have a name.
func parts(m btf.Member) []btf.Member {
	switch t := m.Type.(type) {
	case *btf.Struct:
		if m.Name == "" {
			return t.Members
		}
	case *btf.Union:
		if m.Name == "" {
			return t.Members
		}
	}
	return nil
}

// try has the verifier look at all that is made of the layout.
func (l *layout) try() error {
	var c code
	c.emit(asm.Mov.Reg(regCtx, asm.R1))
	l.load(&c, 0, -40, 40)
	c.verdict(0)
	c.label("out")
	c.verdict(0)
	p, err := cilium.NewProgram(&cilium.ProgramSpec{Type: cilium.SocketFilter, Instructions: c.insns, License: license})
	if err != nil {
		return err
	}
	return p.Close()
}

// load emits: copy n bytes, a multiple of 4, from an offset behind the start of the
// network header to the stack; goto out if they are not all in the linear part of the
// frame. That is just what bpf_skb_load_bytes_relative does (net/core/filter.c).
func (l *layout) load(c *code, off, to, n int16) {
	c.emit(
		asm.Mov.Reg(asm.R1, regCtx),
		kernelCall(l.castContext), // R0 = struct sk_buff *
		asm.LoadMem(asm.R1, asm.R0, l.head, asm.DWord),
		asm.LoadMem(asm.R2, asm.R0, l.tail, asm.Word),
		asm.LoadMem(asm.R3, asm.R0, l.networkHeader, asm.Half),
		asm.Add.Imm(asm.R3, int32(off)),
		asm.Mov.Reg(asm.R4, asm.R3),
		asm.Add.Imm(asm.R4, int32(n)),
		asm.JGT.Reg(asm.R4, asm.R2, "out"),
		asm.Add.Reg(asm.R1, asm.R3))
	l.read(c)
	for i := int16(0); i < n; i += 4 {
		c.emit(
			asm.LoadMem(asm.R1, asm.R0, memoryStart+i, asm.Word),
			asm.StoreMem(asm.RFP, to+i, asm.R1, asm.Word))
	}
}

// read emits what lets the program read the kernel's memory from where R1 points to:
// behind, R0 points there, but for memoryStart.
func (l *layout) read(c *code) {
	c.emit(
		asm.Sub.Imm(asm.R1, memoryStart),
		asm.Mov.Imm(asm.R2, int32(l.memory)),
		kernelCall(l.castReadOnly)) // R0 = R1
}

func kernelCall(function btf.TypeID) asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(function)}
}
