package integration

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestTheFreeBSDBinariesNeedNoLibrary(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("make", "-C", "..", "build-freebsd", "BIN="+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		f, err := elf.Open(filepath.Join(dir, "jailtap-freebsd-"+arch))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.OSABI != elf.ELFOSABI_FREEBSD || f.Machine != machine || f.Type != elf.ET_EXEC {
			t.Errorf("%s: %v, %v, %v", arch, f.OSABI, f.Machine, f.Type)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s: has a %v segment", arch, p.Type)
			}
		}
		if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
			t.Errorf("%s: needs %v, %v", arch, libs, err)
		}
	}
}
