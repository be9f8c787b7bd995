package broker

import (
	"context"
	"errors"
	"slices"

	"jailtap/bpf"
)

// admits checks a request against what the jail may ask for.
func (w *ward) admits(jail *Jail, r *Request) error {
	if err := w.inTime(); err != nil {
		return err
	}
	if allowed := jail.Interfaces; len(allowed) > 0 && !slices.Contains(allowed, r.Interface) {
		return Refuse(CodeInterface, "interface %.16q is not for jail %s: %q are", r.Interface, w.name, allowed)
	}
	return nil
}

// inTime counts a request.
func (w *ward) inTime() error {
	if !w.limiter.Allow() {
		return Refuse(CodeLimit, "jail %s asks for more than %v things a second", w.name, w.limits.Rate)
	}
	return nil
}

func (w *ward) scopeNow() bpf.Scope {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// setFilter makes the filter the socket's. What the kernel cannot do is left for
// the client. length is that of the program for files.
func (c *connection) setFilter(ctx context.Context, h *holding, w *ward, f *Filter) (rest Rest, length int, err error) {
	if f.everything() {
		return rest, 0, h.ClearFilter()
	}
	program, err := c.program(ctx, h.LinkType(), w, f)
	if err != nil {
		return rest, 0, err
	}
	length = len(program)
	live, err := bpf.Live(program, bpf.View{LinkType: h.LinkType(), Live: true}, c.vlans)
	if errors.Is(err, bpf.ErrNotLive) {
		return Rest{ProgramOf(program)}, length, h.ClearFilter()
	}
	if err == nil {
		err = h.SetFilter(live)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return Rest{ProgramOf(program)}, length, h.ClearFilter()
	}
	if err != nil {
		return rest, 0, Refuse(CodeFilter, "%v", err)
	}
	return rest, length, nil
}

// program is what the client wants, about frames in files.
func (c *connection) program(ctx context.Context, lt bpf.LinkType, w *ward, f *Filter) (p bpf.Program, err error) {
	switch {
	case f.Expression != "":
		p, err = c.Compile(ctx, w.name, f.Expression, lt, f.Snaplen)
	case f.Program != nil:
		p, err = f.Program.BPF()
	default:
		const retK = 0x06 // BPF_RET | BPF_K of linux/bpf_common.h
		p = bpf.Program{{Op: retK, K: uint32(f.Snaplen)}}
	}
	if r := (*Refusal)(nil); errors.As(err, &r) {
		return nil, r
	}
	if err != nil {
		return nil, Refuse(CodeFilter, "%v", err)
	}
	if len(p) > w.limits.Instructions {
		return nil, Refuse(CodeLimit, "a filter of %d instructions: jail %s may have %d", len(p), w.name, w.limits.Instructions)
	}
	if err := p.Validate(bpf.Linux); err != nil {
		return nil, Refuse(CodeFilter, "%v", err)
	}
	return p, nil
}
