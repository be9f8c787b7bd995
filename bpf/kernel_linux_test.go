package bpf_test

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	translate "jailtap/bpf/ebpf"
	"jailtap/internal/testutil"
)

// The cases of TestAnInjectedProgramIsScopeAndUser, in the kernel: as a classic
// filter on a socket, and translated, as eBPF.
func TestTheKernelsVerdictsAreThoseOfTheSpecification(t *testing.T) {
	testutil.NeedRoot(t)
	s := newSource(seed() + 5)
	pair := newSocketPair(t)
	vm := bpf.VM{Dialect: bpf.Linux}
	classic, translated, accepted := 0, 0, 0
	for classic < cases(t, 20_000) {
		lt := pick(s, bpf.LinkTypes()...)
		scope := s.scope()
		user, about := s.user(t, lt)
		program, err := bpf.Compile(scope, bpf.View{LinkType: lt}, bpf.Linux, user)
		if err != nil {
			t.Fatal(err)
		}
		if err := pair.attach(program); err != nil {
			t.Fatalf("the kernel refuses: %v\n%s", err, program.Text())
		}
		run, done := testRunner(t, program)
		for range framesEach {
			frame := s.frame(lt)
			if len(frame) == 0 {
				continue
			}
			want := uint32(0)
			if scope.Match(lt, frame) {
				want = vm.Run(user, bpf.Packet{Data: frame, WireLen: uint32(len(frame))})
			}
			size, ok := pair.pass(t, frame)
			if ok != (want != 0) || ok && size != min(len(frame), int(want)) {
				t.Fatalf("scope %+v, %v, user %s, frame %x: the kernel keeps %d bytes (%v), want %d\n%s", scope, lt, about, frame, size, ok, want, program.Text())
			}
			classic++
			if ok {
				accepted++
			}
			got, ok := run(frame)
			if !ok {
				continue
			}
			if got != want {
				t.Fatalf("scope %+v, %v, user %s, frame %x: eBPF gives %d, want %d\n%s", scope, lt, about, frame, got, want, program.Text())
			}
			translated++
		}
		done()
	}
	if accepted == 0 || translated < classic/2 {
		t.Error("the test has lost its point")
	}
	t.Logf("%d frames as cBPF, %d as eBPF; %d accepted", classic, translated, accepted)
}

// testRunner loads the translated program and runs it by BPF_PROG_TEST_RUN, as
// a traffic-control program: those start at the link-level header. ok is false
// for frames that a test run does not take: shorter than 14 bytes, or cut off
// in an IP header.
func testRunner(t *testing.T, p bpf.Program) (run func(frame []byte) (verdict uint32, ok bool), done func()) {
	t.Helper()
	body, err := translate.Translate(p)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.SchedCLS,
		Instructions: append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, body...),
		License:      "Apache-2.0",
	})
	if err != nil {
		t.Fatalf("%+v\n%s", err, p.Text())
	}
	run = func(frame []byte) (uint32, bool) {
		verdict, err := prog.Run(&ebpf.RunOptions{Data: frame})
		if err != nil && !errors.Is(err, unix.EINVAL) {
			t.Fatal(err)
		}
		return verdict, err == nil
	}
	return run, func() {
		prog.Close()
		time.Sleep(time.Millisecond) // see socketPair.attach
	}
}
