package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// loaded is where a program made by writeProgram is in memory.
const loaded = 0x400000

// writeProgram writes an ELF program of machine code that makes one call and then
// exits with status 42.
func writeProgram(t *testing.T, path string, call []byte) {
	t.Helper()
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
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Options of captive sockets are not guarded against such calls.
func TestAContainersProcessThatMakesACallOfAnotherArchitectureIsKilled(t *testing.T) {
	const sigsys = 31
	calls := map[string]struct {
		code  []byte
		under int // exit status under the profile, as the shell has it
	}{
		"native": {[]byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05}, 42},              // mov eax, getpid; syscall
		"i386":   {[]byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80}, 128 + sigsys},    // mov eax, getpid; int 0x80
		"x32":    {[]byte{0xb8, 39, 0, 0, 0x40, 0x0f, 0x05}, 128 + sigsys}, // mov eax, X32|getpid; syscall
	}
	alone := filepath.Join(t.TempDir(), "i386")
	writeProgram(t, alone, calls["i386"].code)
	if err := exec.Command(alone).Run(); err != nil && strings.Contains(err.Error(), "segmentation fault") {
		t.Logf("this machine has no i386 calls: %v", err)
		delete(calls, "i386")
	}
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, _ := lab(t)
		socket := deafSocket(t)
		for name, call := range calls {
			for _, confined := range []bool{false, true} {
				c := newContainer(t, runtime, host, name, name+"; exit $?")
				writeProgram(t, filepath.Join(c.dir, "root/bin", name), call.code)
				want := 42
				if confined {
					c.profile("--listener " + socket)
					want = call.under
				}
				if r := c.start().end(0); r.status != want {
					t.Errorf("%s, confined %v: exit status %d, want %d\n%s", name, confined, r.status, want, r.stderr)
				}
				c.command("delete", "--force", c.id).Run()
			}
		}
	})
}
