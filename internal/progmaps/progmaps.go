// Package progmaps finds the maps of an eBPF program that another process loaded.
package progmaps

import (
	"errors"

	"github.com/cilium/ebpf"
)

// Maps are a program's, by their names (BPF_OBJ_NAME_LEN, 15 bytes, of
// include/uapi/linux/bpf.h). Whoever has them closes them.
type Maps map[string]*ebpf.Map

// Of finds the maps of a program. It needs CAP_SYS_ADMIN, as bpf(2) has it.
func Of(id ebpf.ProgramID) (Maps, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return nil, err
	}
	maps := Maps{}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		if err := maps.add(id); err != nil {
			maps.Close()
			return nil, err
		}
	}
	return maps, nil
}

func (m Maps) add(id ebpf.MapID) error {
	found, err := ebpf.NewMapFromID(id)
	if err != nil {
		return err
	}
	info, err := found.Info()
	if err != nil {
		return errors.Join(err, found.Close())
	}
	m[info.Name] = found
	return nil
}

// Take is a map that is not to be closed with the others, or nil.
func (m Maps) Take(name string) *ebpf.Map {
	found := m[name]
	delete(m, name)
	return found
}

// Close closes those that nobody has taken.
func (m Maps) Close() {
	for _, one := range m {
		one.Close()
	}
}
