package world

import (
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// A loader is which program loads an object's libraries; each has rules of its
// own about where they are.
type loader int

const (
	glibc   loader = iota // ld.so(8)
	musl                  // ldso/dynlink.c of musl
	freebsd               // rtld(1)
)

// loaderOf tells by the interpreter or, for libraries, by what they need.
func loaderOf(o *object) loader {
	interp := path.Base(o.interp)
	switch {
	case strings.HasPrefix(interp, "ld-musl-"):
		return musl
	case strings.HasPrefix(interp, "ld-elf"), o.osabi == elf.ELFOSABI_FREEBSD:
		return freebsd
	}
	isMusl := func(name string) bool { return name == "libc.so" || strings.HasPrefix(name, "libc.musl-") }
	if o.interp == "" && slices.ContainsFunc(o.needed, isMusl) {
		return musl
	}
	return glibc
}

// has reports whether the loader is the library itself, as musl is its own
// libc (load_library in ldso/dynlink.c).
func (l loader) has(name string) bool {
	if l != musl {
		return false
	}
	for _, own := range []string{"libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."} {
		if strings.HasPrefix(name, own) {
			return true
		}
	}
	return false
}

// A platform is what the folders of an architecture are called.
type platform struct {
	triplet string // Debian's multiarch folders
	lib     string // $LIB elsewhere
	name    string // $PLATFORM, AT_PLATFORM of getauxval(3)
}

func platformOf(o *object) platform {
	switch o.machine {
	case elf.EM_X86_64:
		if o.class == elf.ELFCLASS32 {
			return platform{"x86_64-linux-gnux32", "libx32", "x86_64"}
		}
		return platform{"x86_64-linux-gnu", "lib64", "x86_64"}
	case elf.EM_386:
		return platform{"i386-linux-gnu", "lib", "i686"}
	case elf.EM_AARCH64:
		return platform{"aarch64-linux-gnu", "lib64", "aarch64"}
	case elf.EM_ARM:
		return platform{"arm-linux-gnueabihf", "lib", "v7l"}
	case elf.EM_PPC64:
		return platform{"powerpc64le-linux-gnu", "lib64", "power8"}
	case elf.EM_RISCV:
		return platform{"riscv64-linux-gnu", "lib64", "riscv"}
	case elf.EM_S390:
		return platform{"s390x-linux-gnu", "lib64", "z10"}
	}
	return platform{"", "lib", ""}
}

// builtIn are the folders that a loader knows by itself.
func (l loader) builtIn(p platform) []string {
	switch {
	case l == musl:
		return []string{"/lib", "/usr/local/lib", "/usr/lib"}
	case l == freebsd, p.triplet == "":
		return []string{"/lib", "/usr/lib"}
	}
	return []string{"/lib/" + p.triplet, "/usr/lib/" + p.triplet, "/" + p.lib, "/usr/" + p.lib, "/lib", "/usr/lib"}
}

// configured are the folders that the administrator names, and the file that
// the loader reads for it in the world, if it reads one.
func (t *tree) configured(l loader) (dirs []string, file string) {
	switch l {
	case musl:
		for _, file := range t.glob("/etc/ld-musl-*.path") {
			text, _ := t.readFile(file)
			return strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == '\n' }), file
		}
	case freebsd:
		const hints = "/var/run/ld-elf.so.hints"
		if text, err := t.readFile(hints); err == nil {
			return hintDirs([]byte(text)), hints
		}
	case glibc:
		return t.ldConf("/etc/ld.so.conf", map[string]bool{}), ""
	}
	return nil, ""
}

// hintDirs reads what ldconfig(8) of FreeBSD writes: struct elfhints_hdr of
// sys/link_elf.h, six numbers in the machine's byte order, and a list of
// folders with colons between.
func hintDirs(b []byte) []string {
	const magic, size = 0x746e6845, 24
	if len(b) < size {
		return nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(b) != magic {
		order = binary.BigEndian
	}
	strtab, dirs, length := uint64(order.Uint32(b[8:])), uint64(order.Uint32(b[16:])), uint64(order.Uint32(b[20:]))
	if order.Uint32(b) != magic || strtab+dirs+length > uint64(len(b)) {
		return nil
	}
	return strings.Split(string(b[strtab+dirs:strtab+dirs+length]), ":")
}

// ldConf reads ld.so.conf as ldconfig(8) does; files that include one another
// are read once.
func (t *tree) ldConf(file string, read map[string]bool) (dirs []string) {
	if read[file] {
		return nil
	}
	read[file] = true
	text, err := t.readFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "hwcap":
		case words[0] == "include":
			for _, pattern := range words[1:] {
				if !path.IsAbs(pattern) {
					pattern = path.Join(path.Dir(file), pattern)
				}
				for _, included := range t.glob(pattern) {
					dirs = append(dirs, t.ldConf(included, read)...)
				}
			}
		default:
			dir, _, _ := strings.Cut(words[0], "=")
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// hwcaps are the variants of a library for newer processors (ld.so(8),
// glibc-hwcaps). The world may run on another one: all belong to it.
func (t *tree) hwcaps(dir, name string) []string {
	sub := path.Join(dir, "glibc-hwcaps")
	if _, err := t.find(sub); err != nil {
		return nil
	}
	return t.glob(path.Join(sub, "*", globQuote.Replace(name)))
}

var globQuote = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// isFile reports whether a path leads to a regular file, and where that is.
func (t *tree) isFile(name string) (place, bool) {
	at, err := t.find(name)
	return at, err == nil && at.info.Mode()&fs.ModeType == 0
}
