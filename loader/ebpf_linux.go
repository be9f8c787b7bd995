package loader

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
)

// withMaps is the engine that has the addresses of the scope in maps. A new
// scope changes those; it takes a new program only if it has another policy or
// other VLANs, or if the maps are too small.
type withMaps struct {
	plan
	addrs    *addrSet    // without maps if unscoped
	counters *cilium.Map // the same for all programs
	attached bool        // if not, the socket rejects everything

	put func(*cilium.Program) error // has the program asked; nil: the socket does
}

func attachEBPF(fd int, p plan) (filter, error) {
	// Before Linux 5.11 maps are locked memory. (Cilium's package rlimit asks for the
	// version, with a map, whenever a program starts that could need it.) If it fails,
	// loading will tell.
	unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	w := &withMaps{plan: p, addrs: &addrSet{}}
	if err := w.install(fd, p.scope); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// install puts a new program for the scope on the socket, in the place of what
// is there.
func (w *withMaps) install(fd int, s bpf.Scope) error {
	w.scope = s
	user, err := bpf.Live(w.user, w.view, w.vlans())
	if err != nil {
		return err
	}
	if w.unscoped {
		spec, err := ebpf.Unscoped(user)
		if err != nil {
			return err
		}
		return w.load(fd, spec, w.addrs)
	}
	addrs, err := filled(s)
	if err != nil {
		return err
	}
	spec, err := ebpf.Spec(w.view, s, user, addrs.capacity)
	if err == nil {
		err = w.load(fd, spec, addrs)
	}
	if err != nil {
		addrs.Close()
		return err
	}
	w.addrs.Close() // those of the program before
	w.addrs, w.attached = addrs, true
	return nil
}

// filled are maps with the scope's addresses.
func filled(s bpf.Scope) (*addrSet, error) {
	addrs, err := newAddrSet(ebpf.CapacityFor(s.Addrs))
	if err != nil {
		return nil, explainBPF(err)
	}
	if err := addrs.Set(s.Addrs); err != nil {
		addrs.Close()
		return nil, err
	}
	return addrs, nil
}

// load attaches the program of spec, with the maps that exist already.
func (w *withMaps) load(fd int, spec *cilium.CollectionSpec, addrs *addrSet) error {
	existing := map[string]*cilium.Map{}
	maps.Copy(existing, addrs.Maps())
	if w.counters != nil {
		existing[ebpf.Counts] = w.counters
	}
	c, err := cilium.NewCollectionWithOptions(spec, cilium.CollectionOptions{MapReplacements: existing})
	if err != nil {
		return explainBPF(err)
	}
	defer c.Close() // the socket keeps the program, and that its maps
	// Each packet meets the old filter or the new one.
	if w.put == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, c.Programs[ebpf.Program].FD())
	} else {
		err = w.put(c.Programs[ebpf.Program])
	}
	if err != nil {
		return fmt.Errorf("attach the program: %w", err)
	}
	if w.counters == nil {
		w.counters = c.DetachMap(ebpf.Counts)
	}
	return nil
}

func (w *withMaps) setScope(fd int, s bpf.Scope) error {
	if err := w.change(fd, s); err != nil {
		return w.failClosed(fd, err)
	}
	return nil
}

// change is setScope that may fail in between.
func (w *withMaps) change(fd int, s bpf.Scope) error {
	if w.attached && sameProgram(w.scope, s) {
		err := w.addrs.Set(s.Addrs)
		if err == nil {
			w.scope = s
			return nil
		}
		if !errors.Is(err, errCapacity) {
			return err
		}
	}
	return w.install(fd, s)
}

// sameProgram reports whether two scopes differ at most in their addresses.
func sameProgram(a, b bpf.Scope) bool {
	return a.Policy == b.Policy && a.VLANs.Any == b.VLANs.Any && slices.Equal(a.VLANs.IDs, b.VLANs.IDs)
}

func (w *withMaps) failClosed(fd int, err error) error {
	w.attached = false
	return failClosed(fd, err)
}

func (w *withMaps) count(s *Stats) error {
	sum, err := sumCounters(w.counters)
	if err != nil {
		return err
	}
	s.Seen, s.InScope, s.Matched = &sum.Seen, &sum.InScope, &sum.Matched
	return nil
}

// sumCounters adds up what each CPU has counted.
func sumCounters(m *cilium.Map) (sum ebpf.Counters, err error) {
	var each []ebpf.Counters
	if err := m.Lookup(uint32(0), &each); err != nil {
		return sum, fmt.Errorf("read the filter's counters: %w", err)
	}
	for _, c := range each {
		sum.Seen += c.Seen
		sum.InScope += c.InScope
		sum.Matched += c.Matched
	}
	return sum, nil
}

func (w *withMaps) close() {
	w.addrs.Close()
	w.counters.Close()
}

// explainBPF says what is missing if the kernel does not load maps or a program.
func explainBPF(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES) && !verified(err):
		return &PrivilegeError{Op: "load an eBPF program", Capability: "CAP_BPF", Err: err}
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the kernel lacks eBPF (CONFIG_BPF_SYSCALL), or a sandbox hides it: %w", err)
	}
	return fmt.Errorf("load an eBPF program: %w", err)
}

// verified reports whether err is the verifier's word on a program, which is
// EACCES too.
func verified(err error) bool {
	var v *cilium.VerifierError
	return errors.As(err, &v)
}
