package bpf_test

import (
	"encoding/binary"
	"testing"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
)

// FuzzInject lets the fuzzer write the user's program and the frame; scope and
// link type are drawn from the seed. `make fuzz` runs it on.
func FuzzInject(f *testing.F) {
	s := newSource(1)
	for i := range uint64(40) {
		f.Add(i, encode(s.program()), s.frame(bpf.Ethernet))
	}
	f.Fuzz(func(t *testing.T, seed uint64, code, frame []byte) {
		user := decode(code)
		s := newSource(seed)
		lt := pick(s, bpf.LinkTypes()...)
		scope := s.scope()
		for _, vm := range []bpf.VM{{Dialect: bpf.Linux}, {Dialect: bpf.FreeBSD}, {Dialect: bpf.FreeBSD, Receive: true}} {
			if len(user) > 0 && user.Validate(vm.Dialect) != nil {
				continue
			}
			program, err := bpf.Compile(scope, bpf.View{LinkType: lt}, vm.Dialect, user)
			if err != nil {
				t.Fatalf("%v: %v", vm.Dialect, err)
			}
			packet := bpf.Packet{Data: frame, WireLen: uint32(len(frame))}
			want := uint32(0)
			if scope.Match(lt, frame) {
				want = vm.Run(user, packet)
			}
			if got := vm.Run(program, packet); got != want {
				t.Fatalf("%+v: scope %+v, %v, frame %x: verdict %d, want %d\n%s\nuser\n%s", vm, scope, lt, frame, got, want, program.Text(), user.Text())
			}
		}
	})
}

// FuzzProve gives Prove any program: where it is proved, no frame gets through
// that is not in scope.
func FuzzProve(f *testing.F) {
	s := newSource(1)
	for i := range uint64(40) {
		p, err := bpf.Compile(newSource(i).scope(), bpf.View{LinkType: bpf.Ethernet}, bpf.Linux, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, encode(p), s.frame(bpf.Ethernet))
	}
	f.Fuzz(func(t *testing.T, seed uint64, code, frame []byte) {
		p, scope := decode(code), newSource(seed).scope()
		if len(p) == 0 || p.Validate(bpf.Linux) != nil || bpf.Prove(p, scope, bpf.View{LinkType: bpf.Ethernet}) != nil {
			return
		}
		verdict := bpf.VM{}.Run(p, bpf.Packet{Data: frame, WireLen: uint32(len(frame))})
		if verdict != 0 && !scope.Match(bpf.Ethernet, frame) {
			t.Fatalf("scope %+v: proved, but it accepts %x\n%s", scope, frame, p.Text())
		}
	})
}

// encode writes a program as the kernel has it, 8 bytes an instruction.
func encode(p bpf.Program) (code []byte) {
	for _, in := range p {
		code = binary.LittleEndian.AppendUint16(code, in.Op)
		code = append(code, in.Jt, in.Jf)
		code = binary.LittleEndian.AppendUint32(code, in.K)
	}
	return code
}

func decode(code []byte) (p bpf.Program) {
	for ; len(code) >= 8 && len(p) < 400; code = code[8:] {
		p = append(p, xbpf.RawInstruction{
			Op: binary.LittleEndian.Uint16(code), Jt: code[2], Jf: code[3], K: binary.LittleEndian.Uint32(code[4:]),
		})
	}
	return p
}
