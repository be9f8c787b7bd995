//go:build linux

package main

import (
	"errors"
	"fmt"

	cilium "github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
)

// withMaps is the contestant with addresses in maps. Its programs share these; each has
// counters of its own.
func withMaps(who string, scope bpf.Scope, user bpf.Program) (*contestant, error) {
	capacity := ebpf.CapacityFor(scope.Addrs)
	live, err := bpf.Live(user, liveEthernet, scope.VLANs)
	if err != nil {
		return nil, err
	}
	spec, err := ebpf.Spec(liveEthernet, scope, live, capacity)
	if err != nil {
		return nil, err
	}
	length := int(spec.Programs[ebpf.Program].Instructions.Size() / asm.InstructionSize)
	rejectingMaps(spec)
	shared, err := filledMaps(scope, capacity)
	c := &contestant{who: who, length: length, above: make(map[string][]float64)}
	c.spec, c.maps, c.close = spec, shared, func() { closeMaps(shared) }
	c.attach = func(fd int) error {
		counters, err := attachMaps(fd, spec, shared)
		return errors.Join(err, counters.Close())
	}
	return c, err
}

// rejectingMaps has the program return 0 where it returns anything. All else, what it counts
// too, is as it was.
func rejectingMaps(spec *cilium.CollectionSpec) {
	var insns asm.Instructions
	for _, ins := range spec.Programs[ebpf.Program].Instructions {
		if ins.OpCode == asm.Return().OpCode {
			insns = append(insns, asm.Mov.Imm32(asm.R0, 0).WithSymbol(ins.Symbol()), asm.Return())
			continue
		}
		insns = append(insns, ins)
	}
	spec.Programs[ebpf.Program].Instructions = insns
}

// attachMaps loads the program once more.
func attachMaps(fd int, spec *cilium.CollectionSpec, shared map[string]*cilium.Map) (counters *cilium.Map, err error) {
	c, err := cilium.NewCollectionWithOptions(spec, cilium.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, c.Programs[ebpf.Program].FD())
	return c.DetachMap(ebpf.Counts), err
}

// filledMaps are maps with single addresses. It returns what it has made also with an error.
func filledMaps(scope bpf.Scope, capacity ebpf.Capacity) (map[string]*cilium.Map, error) {
	made := map[string]*cilium.Map{}
	for name, spec := range ebpf.Maps(capacity) {
		m, err := cilium.NewMap(spec)
		if err != nil {
			return made, fmt.Errorf("map %s: %w", name, err)
		}
		made[name] = m
	}
	var hosts4 [][4]byte
	var hosts6 [][16]byte
	for _, p := range scope.Addrs {
		if a := p.Addr(); a.Is4() {
			hosts4 = append(hosts4, a.As4())
		} else {
			hosts6 = append(hosts6, a.As16())
		}
	}
	values, flags := ebpf.Values(capacity, scope.Addrs)
	err := errors.Join(fill(made[ebpf.Hosts4], hosts4), fill(made[ebpf.Hosts6], hosts6), made[ebpf.Flags].Put(uint32(0), flags))
	for name, value := range values {
		err = errors.Join(err, made[name].Put(uint32(0), value))
	}
	return made, err
}

func fill[Key any](m *cilium.Map, keys []Key) error {
	if len(keys) == 0 {
		return nil
	}
	_, err := m.BatchUpdate(keys, make([]byte, len(keys)), nil)
	return err
}

func closeMaps(made map[string]*cilium.Map) {
	for _, m := range made {
		m.Close()
	}
}
