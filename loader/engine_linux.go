package loader

import (
	"errors"
	"fmt"

	"jailtap/bpf"
)

// A filter enforces the scope in the kernel.
type filter interface {
	// setScope replaces the scope. If it fails nothing more comes in, or the
	// error wraps errStillOpen.
	setScope(fd int, s bpf.Scope) error
	count(*Stats) error // adds what this engine counts
	close()
}

// A plan is what a filter has to do.
type plan struct {
	view     bpf.View
	scope    bpf.Scope
	unscoped bool
	user     bpf.Program // about frames in files; it can be asked of live ones
}

// vlans are those that frames can be on when they come to the user's program.
func (p plan) vlans() bpf.VLANs {
	if p.unscoped {
		return bpf.VLANs{Any: true}
	}
	return p.scope.VLANs
}

// engines attach filters.
var engines = map[Engine]func(fd int, p plan) (filter, error){CBPF: attachCBPF, EBPF: attachEBPF}

// attach puts the scope and the user's program on the socket.
func (t *Tap) attach(cfg Config) error {
	p, err := t.planFor(cfg)
	if err != nil {
		return err
	}
	t.plan = p
	first, why := choose(cfg)
	if first == "" {
		return fmt.Errorf("unknown engine %q: known are %s, %s, %s", cfg.Engine, Auto, CBPF, EBPF)
	}
	t.engine, t.reason = first, why
	t.filter, err = engines[first](t.fd, p)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("engine %s: %w", first, err)
	if cfg.Engine == first {
		return err
	}
	t.engine, t.reason = other(first), err.Error()
	var also error
	if t.filter, also = engines[t.engine](t.fd, p); also != nil {
		return fmt.Errorf("%w; engine %s: %w", err, t.engine, also)
	}
	return nil
}

func other(e Engine) Engine {
	if e == CBPF {
		return EBPF
	}
	return CBPF
}

// fewAddresses is up to where a classic program, which compares addresses in a
// balanced tree, costs a packet less than looking them up in maps. Measured for
// packets in scope and out, in ns: a tree of 16 addresses 3 and 3, of 64, 6 and 15,
// of 128, 7 and 29; maps 18 and 13, however many are in them. What the tree costs is
// the jumps that the CPU has not foreseen, where no address is like the one before.
const fewAddresses = 64

// choose takes the engine that costs least, and says why.
func choose(cfg Config) (Engine, string) {
	n := len(cfg.Scope.Addrs)
	switch {
	case cfg.Engine == CBPF || cfg.Engine == EBPF:
		return cfg.Engine, "it was asked for"
	case cfg.Engine != Auto && cfg.Engine != "":
		return "", ""
	case cfg.NoScope:
		return CBPF, "there is no scope"
	case cfg.ScopeChanges:
		return EBPF, "the scope changes"
	case n > fewAddresses:
		return EBPF, fmt.Sprintf("many addresses: %d", n)
	}
	return CBPF, fmt.Sprintf("few fixed addresses: %d", n)
}

// planFor gets the user's program and decides where it runs: in the kernel, behind
// the scope, or if it looks at what live frames do not have, here, on the
// complete frames that the scope in the kernel has let through.
func (t *Tap) planFor(cfg Config) (plan, error) {
	p := plan{
		view:     bpf.View{LinkType: t.link.typ, Live: true},
		scope:    cfg.Scope,
		unscoped: cfg.NoScope,
	}
	t.frames.linkType, t.frames.direction, t.frames.snaplen = t.link.typ, cfg.Direction, cfg.snaplen()
	var err error
	if p.user, err = cfg.userProgram(t.link.typ, bpf.Linux); err != nil {
		return p, err
	}
	if _, err := bpf.Live(p.user, p.view, p.vlans()); errors.Is(err, bpf.ErrNotLive) {
		p.user, t.frames.program = returns(bpf.KeepAll), p.user
	}
	return p, nil
}
