package conform

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"jailtap/bpf"
	"jailtap/compat/vectors"
)

// A Status is how a vector came out.
type Status string

// The statuses.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// An Outcome is what became of a vector.
type Outcome struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Engine string `json:"engine"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"` // of a failure or a skip
}

// Run asks the vectors of a set of engines that go by one name, which are two
// where a system has two interpreters: a vector that one of them fails has
// failed, and one that one of them answers was not skipped. progress, if not
// nil, is called with the number of vectors that are done. The error is that of
// a context that ended.
func Run(ctx context.Context, set *vectors.Set, engines []Engine, progress func(done int)) ([]Outcome, error) {
	all := list(set)
	outcomes := make([]Outcome, len(all))
	err := parallel(ctx, len(all), progress, func(i int) { outcomes[i] = all[i].judge(engines) })
	return outcomes, err
}

// Skip is the outcome of vectors for an engine that does not exist here.
func Skip(set *vectors.Set, engine, reason string) []Outcome {
	var outcomes []Outcome
	for _, v := range list(set) {
		outcomes = append(outcomes, Outcome{v.id, v.kind, engine, Skipped, reason})
	}
	return outcomes
}

// parallel calls do with 0 to n-1.
func parallel(ctx context.Context, n int, progress func(int), do func(int)) error {
	var next, done atomic.Int64
	var reporting sync.Mutex
	var workers sync.WaitGroup
	// Engines wait for kernels, too: more workers than CPUs.
	for range 8 * runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && ctx.Err() == nil; i = next.Add(1) - 1 {
				do(int(i))
				if so := done.Add(1); progress != nil {
					reporting.Lock()
					progress(int(so))
					reporting.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return ctx.Err()
}

func (v vector) judge(engines []Engine) Outcome {
	o := Outcome{ID: v.id, Kind: v.kind, Engine: engines[0].Name(), Status: Skipped}
	if v.inScope != nil && !v.inScope() {
		o.Status, o.Reason = Failed, "Scope.Match is not what want_scope says"
		return o
	}
	for _, e := range engines {
		questions, cannot := v.ask(e)
		if cannot != "" {
			o.skip(cannot)
		}
		for _, q := range questions {
			o.check(e, q)
		}
	}
	return o
}

func (o *Outcome) skip(reason string) {
	if o.Status == Skipped && o.Reason == "" {
		o.Reason = reason
	}
}

func (o *Outcome) pass() {
	if o.Status == Skipped {
		o.Status, o.Reason = Passed, ""
	}
}

// fail keeps the first reason.
func (o *Outcome) fail(e Engine, q question, format string, args ...any) {
	if o.Status != Failed {
		o.Status = Failed
		o.Reason = fmt.Sprintf("%s, %s: %s", e.Mode(), q.name, fmt.Sprintf(format, args...))
	}
}

// check asks one question.
func (o *Outcome) check(e Engine, q question) {
	answers, err := e.Ask(q.filter, q.pkts)
	var cannot *CannotError
	switch refused := errors.Is(err, ErrRefused); {
	case errors.As(err, &cannot):
		o.skip(cannot.Reason)
		return
	case refused && q.refused:
		o.pass()
		return
	case err != nil:
		o.fail(e, q, "%v", err)
		return
	case q.refused:
		o.fail(e, q, "it is taken, and should be refused")
		return
	}
	if len(q.pkts) == 0 { // that it is taken was the question
		o.pass()
		return
	}
	for i, a := range answers {
		if a.Cannot != "" {
			o.skip(a.Cannot)
			continue
		}
		right, known := q.right(i)
		switch {
		case !known:
			o.skip("the verdict depends on metadata that is not known here")
		case !q.holds(i, right, a):
			o.fail(e, q, "packet %d: %s, want %s", i, a, q.wanted(i, right))
		default:
			o.pass()
		}
	}
}

func (q question) wanted(i int, right uint32) string {
	switch q.as {
	case differs:
		return fmt.Sprintf("anything but %d", right)
	case whether:
		return map[bool]string{true: "that it is accepted", false: "that it is rejected"}[right != 0]
	}
	return fmt.Sprintf("%d (of %d bytes)", right, len(q.pkts[i].Data))
}

// Cut says why a packet of which not all is present cannot be put on a wire,
// for programs that ask for its length; others cannot tell.
func Cut(p bpf.Program, pkt bpf.Packet) (cannot string) {
	if int64(pkt.WireLen) == int64(len(pkt.Data)) {
		return ""
	}
	const ldLen, ldxLen = 0x80, 0x81
	for _, in := range p {
		if in.Op == ldLen || in.Op == ldxLen {
			return "the program asks for the length of a packet that is cut, and a packet that is sent is whole"
		}
	}
	return ""
}
