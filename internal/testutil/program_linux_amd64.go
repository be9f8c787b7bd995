package testutil

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// loaded is where a program made by WriteProgram is in memory.
const loaded = 0x400000

// WriteProgram writes an ELF program of machine code that makes one call and then
// exits with status 42.
func WriteProgram(path string, call []byte) error {
	exit := []byte{0xb8, 60, 0, 0, 0, 0xbf, 42, 0, 0, 0, 0x0f, 0x05} // mov eax, exit; mov edi, 42; syscall
	code := append(bytes.Clone(call), exit...)
	const headers = 64 + 56
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: loaded + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: loaded, Paddr: loaded,
		Filesz: uint64(headers + len(code)), Memsz: uint64(headers + len(code)), Align: 4096,
	}
	var b bytes.Buffer
	for _, part := range []any{h, p, code} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return err
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o755)
}

// GetpidI386 makes an i386 call: mov eax, getpid; int 0x80.
var GetpidI386 = []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80}

// HasI386Calls reports whether a process may make i386 calls here. Where the kernel has
// none, or a hypervisor does not let them through, they kill who makes one (SIGSEGV).
func HasI386Calls(t testing.TB) bool {
	t.Helper()
	has, err := hasI386Calls()
	if err != nil {
		t.Fatal(err)
	}
	if !has {
		t.Log("this machine has no i386 calls")
	}
	return has
}

var hasI386Calls = sync.OnceValues(func() (bool, error) {
	dir, err := os.MkdirTemp("", "jailtap-i386-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "getpid")
	if err := WriteProgram(program, GetpidI386); err != nil {
		return false, err
	}
	err = exec.Command(program).Run()
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return false, err
	}
	status := ended.Sys().(syscall.WaitStatus)
	if status.Signaled() && status.Signal() == syscall.SIGSEGV {
		return false, nil
	}
	if status.ExitStatus() == 42 {
		return true, nil
	}
	return false, err
})
