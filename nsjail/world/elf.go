package world

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// An object is what an ELF file says about what it needs (elf(5)).
type object struct {
	class   elf.Class
	machine elf.Machine
	osabi   elf.OSABI
	interp  string
	soname  string
	needed  []string
	rpath   []string // DT_RPATH, which holds for what it loads as well
	runpath []string // DT_RUNPATH, for what it needs itself
}

// maxDynamic bounds what is read of a dynamic section, in bytes; some thousand
// entries are in it.
const maxDynamic = 1 << 20

// readObject reads an ELF file as its loader does: by segments, for sections
// may have been stripped. What is not ELF is nil.
func readObject(r io.ReaderAt) (o *object, err error) {
	defer func() { // debug/elf is not hardened, says its documentation
		if p := recover(); p != nil {
			o, err = nil, fmt.Errorf("broken ELF file: %v", p)
		}
	}()
	h := heads.Get().(*head)
	defer heads.Put(h)
	if isELF, err := h.read(r); !isELF || err != nil {
		return nil, err
	}
	f, err := elf.NewFile(h)
	if err != nil {
		return nil, fmt.Errorf("broken ELF file: %w", err)
	}
	o = &object{class: f.Class, machine: f.Machine, osabi: f.OSABI}
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_INTERP:
			o.interp, err = readString(p, 0)
		case elf.PT_DYNAMIC:
			err = o.readDynamic(f, p)
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

// A head is an ELF file whose beginning, where most of what a loader reads is, was read
// at once, and which has no sections.
type head struct {
	io.ReaderAt
	start  []byte
	buffer [16 << 10]byte
}

// heads are used again: hundreds of new ones would have the collector of garbage at work.
var heads = sync.Pool{New: func() any { return new(head) }}

// read reads the beginning, and tells whether it is of an ELF file.
func (h *head) read(r io.ReaderAt) (isELF bool, err error) {
	h.ReaderAt = r
	n, err := r.ReadAt(h.buffer[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	h.start = h.buffer[:n]
	if !bytes.HasPrefix(h.start, []byte(elf.ELFMAG)) {
		return false, nil
	}
	h.dropSections()
	return true, nil
}

// dropSections clears e_shoff, and e_shnum and e_shstrndx, the last of the header (elf(5)).
func (h *head) dropSections() {
	offset, end := 0x28, 0x40
	width := 8
	if len(h.start) > elf.EI_CLASS && elf.Class(h.start[elf.EI_CLASS]) == elf.ELFCLASS32 {
		offset, end, width = 0x20, 0x34, 4
	}
	if len(h.start) >= end {
		clear(h.start[offset : offset+width])
		clear(h.start[end-4 : end])
	}
}

func (h *head) ReadAt(b []byte, off int64) (int, error) {
	if off >= 0 && off < int64(len(h.start)) && int64(len(b)) <= int64(len(h.start))-off {
		return copy(b, h.start[off:]), nil
	}
	return h.ReaderAt.ReadAt(b, off)
}

func (o *object) readDynamic(f *elf.File, p *elf.Prog) error {
	if p.Filesz > maxDynamic {
		return fmt.Errorf("broken ELF file: dynamic section of %d bytes", p.Filesz)
	}
	data := make([]byte, p.Filesz)
	if _, err := p.ReadAt(data, 0); err != nil {
		return fmt.Errorf("broken ELF file: dynamic section: %w", err)
	}
	tags := dynamicTags(f, data)
	var strtab uint64
	for _, t := range tags {
		if t.tag == elf.DT_STRTAB {
			strtab = t.value
		}
	}
	for _, t := range tags {
		if err := o.take(f, strtab, t); err != nil {
			return err
		}
	}
	return nil
}

type dynamicTag struct {
	tag   elf.DynTag
	value uint64
}

func dynamicTags(f *elf.File, data []byte) (tags []dynamicTag) {
	width := 4
	if f.Class == elf.ELFCLASS64 {
		width = 8
	}
	for ; len(data) >= 2*width; data = data[2*width:] {
		var t dynamicTag
		if width == 8 {
			t = dynamicTag{elf.DynTag(f.ByteOrder.Uint64(data)), f.ByteOrder.Uint64(data[8:])}
		} else {
			t = dynamicTag{elf.DynTag(f.ByteOrder.Uint32(data)), uint64(f.ByteOrder.Uint32(data[4:]))}
		}
		if t.tag == elf.DT_NULL {
			break
		}
		tags = append(tags, t)
	}
	return tags
}

// take reads the string of a tag, if it is about libraries.
func (o *object) take(f *elf.File, strtab uint64, t dynamicTag) error {
	switch t.tag {
	case elf.DT_NEEDED, elf.DT_SONAME, elf.DT_RPATH, elf.DT_RUNPATH:
	default:
		return nil
	}
	text, err := stringAt(f, strtab+t.value)
	if err != nil {
		return err
	}
	switch t.tag {
	case elf.DT_NEEDED:
		o.needed = append(o.needed, text)
	case elf.DT_SONAME:
		o.soname = text
	case elf.DT_RPATH:
		o.rpath = strings.Split(text, ":")
	case elf.DT_RUNPATH:
		o.runpath = strings.Split(text, ":")
	}
	return nil
}

// stringAt reads a string by its address in memory.
func stringAt(f *elf.File, addr uint64) (string, error) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return readString(p, int64(addr-p.Vaddr))
		}
	}
	return "", fmt.Errorf("broken ELF file: no string at %#x", addr)
}

// readString reads up to a NUL; paths are no longer than PATH_MAX.
func readString(r io.ReaderAt, off int64) (string, error) {
	const piece, longest = 256, 4096
	var text []byte
	for len(text) < longest {
		b := make([]byte, piece)
		n, err := r.ReadAt(b, off+int64(len(text)))
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(append(text, b[:end]...)), nil
		}
		if err != nil {
			return "", fmt.Errorf("broken ELF file: string without end: %w", err)
		}
		text = append(text, b...)
	}
	return "", errors.New("broken ELF file: string without end")
}
