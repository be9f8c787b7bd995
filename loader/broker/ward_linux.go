package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"jailtap/bpf"
)

// A ward is a jail that has, or has just had, captive sockets: their list, and
// one follower that keeps the scope of all of them.
type ward struct {
	name    string
	scope   Scope
	limits  Limits
	limiter *rate.Limiter
	log     *slog.Logger

	known chan struct{} // closed when the scope is, or cannot be had
	stop  context.CancelFunc
	done  chan struct{}

	mu      sync.Mutex
	now     bpf.Scope
	changes int
	failed  error // why nothing is in scope any more
	held    map[*holding]bool
	spares  []stored
	making  int // for which there is room, not yet in held
	ring    int // bytes, of those being made too
	used    time.Time
	tally   tally

	stocking bool // somebody prepares spares
	stockers sync.WaitGroup
}

// A holding is a captive socket that somebody has.
type holding struct {
	Captive
	ring int
}

// A tally counts what a jail asked for.
type tally struct {
	given   uint64
	refused map[Code]uint64
	gone    Stats // of sockets that are no more
}

func newWard(j *Jail, log *slog.Logger) *ward {
	limits := j.Limits.withDefaults()
	ctx, stop := context.WithCancel(context.Background())
	w := &ward{
		name: j.Name, scope: j.Scope, limits: limits, log: log.With("jail", j.Name),
		limiter: rate.NewLimiter(rate.Limit(limits.Rate), max(1, int(2*limits.Rate))),
		known:   make(chan struct{}), stop: stop, done: make(chan struct{}),
		held: map[*holding]bool{}, used: time.Now(), tally: tally{refused: map[Code]uint64{}},
	}
	go w.follow(ctx)
	return w
}

// follow keeps the scope of all sockets. If that fails nothing is shown any
// more: it might not be the jail's.
func (w *ward) follow(ctx context.Context) {
	defer close(w.done)
	var once sync.Once
	known := func() { close(w.known) }
	defer once.Do(known)
	err := w.scope.Watch(ctx, func(s bpf.Scope) {
		w.set(s)
		once.Do(known)
	})
	if err == nil && ctx.Err() == nil {
		err = errors.New("the watch on its addresses has ended")
	}
	if err != nil {
		w.log.Error("scope lost, sockets shut", "error", err, "sockets", w.shut(err))
	}
}

func (w *ward) set(s bpf.Scope) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = s
	w.changes++
	for h := range w.held {
		if err := h.SetScope(s); err != nil { // nothing is in scope then
			w.log.Error("scope of a captive", "cookie", h.Cookie(), "error", err)
		}
	}
	if w.changes > 1 {
		w.log.Info("scope changed", "scope", w.scope.Describe(s))
	}
}

// shut revokes all sockets, and makes no more.
func (w *ward) shut(why error) (sockets int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = why
	for h := range w.held {
		if err := h.Revoke(); err != nil {
			w.log.Error("revoke a captive", "cookie", h.Cookie(), "error", err)
		}
	}
	return len(w.held)
}

// reserve makes room for a socket, which join or cancel then takes up.
func (w *ward) reserve(ring int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held)+w.making >= w.limits.Captives {
		w.bury()
	}
	switch {
	case len(w.held)+w.making >= w.limits.Captives:
		return Refuse(CodeLimit, "jail %s has %d captive sockets, and no more at once", w.name, w.limits.Captives)
	case ring > w.limits.RingBytes-w.ring:
		return Refuse(CodeLimit, "a ring of %d bytes: jail %s has rings of %d, and %d are all it may have", ring, w.name, w.ring, w.limits.RingBytes)
	}
	w.making++
	w.ring += ring
	return nil
}

// cancel is for a socket that will not come.
func (w *ward) cancel(ring int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.making--
	w.ring -= ring
}

// current is the scope to make a socket with, and its number, for join.
func (w *ward) current(ctx context.Context) (s bpf.Scope, changes int, err error) {
	select {
	case <-w.known:
	case <-ctx.Done():
		return s, 0, Refuse(CodeScope, "the addresses of jail %s are not known: %v", w.name, ctx.Err())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return s, 0, Refuse(CodeScope, "the addresses of jail %s are not known: %v", w.name, w.failed)
	}
	return w.now, w.changes, nil
}

// join puts a socket for which there is room on the list, with the scope of this
// moment.
func (w *ward) join(h *holding, changes int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.admit(h, changes); err != nil {
		return err
	}
	w.making--
	return nil
}

// admit puts a socket on the list. The caller has w.mu.
func (w *ward) admit(h *holding, changes int) error {
	if w.failed != nil {
		return fmt.Errorf("the scope is lost: %w", w.failed)
	}
	if changes != w.changes { // it has changed while the socket was being made
		if err := h.SetScope(w.now); err != nil {
			return err
		}
	}
	w.held[h] = true
	w.used = time.Now()
	return nil
}

// adopt puts a socket on the list that is there already, beyond all limits.
func (w *ward) adopt(c Captive) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	const another = -1 // scope than that of this moment
	return w.admit(&holding{Captive: c}, another)
}

// drop takes a socket off the list that its client never got.
func (w *ward) drop(h *holding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.held, h)
	w.ring -= h.ring
	w.used = time.Now()
}

// bury forgets the sockets that nobody has any more. The caller has w.mu.
func (w *ward) bury() (buried int) {
	for h := range w.held {
		if h.Alive() {
			continue
		}
		if s, err := h.Stats(); err == nil {
			w.tally.gone = w.tally.gone.plus(s)
		}
		if err := h.Close(); err != nil {
			w.log.Error("close a captive", "cookie", h.Cookie(), "error", err)
		}
		w.log.Info("captive gone", "cookie", h.Cookie())
		delete(w.held, h)
		w.ring -= h.ring
		w.used = time.Now()
		buried++
	}
	return buried
}

// sweep buries, and reports whether the ward has had nothing to do for a while.
func (w *ward) sweep(idle time.Duration) (buried int, idles bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	buried = w.bury()
	return buried, len(w.held)+w.making == 0 && time.Since(w.used) >= idle
}

// close ends the follower. Sockets stay as they are with those who have them.
func (w *ward) close() {
	w.stop()
	<-w.done
	held := w.leave()
	w.stockers.Wait()
	w.dropSpares(0)
	for _, h := range held {
		if err := h.Close(); err != nil {
			w.log.Error("close a captive", "cookie", h.Cookie(), "error", err)
		}
	}
	w.scope.Close()
}

func (w *ward) leave() []*holding {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Collect(maps.Keys(w.held))
	clear(w.held)
	w.failed = errors.New("the broker ends")
	return all
}

func (w *ward) refused(code Code) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.refused[code]++
}

func (w *ward) given() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.given++
}

// A JailStats says what a jail has had, since it last had nothing for a while.
type JailStats struct {
	Name      string
	Captives  int
	RingBytes int
	Given     uint64
	Refused   map[Code]uint64
	Stats     // of all its sockets
}

func (w *ward) stats() JailStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := JailStats{Name: w.name, Captives: len(w.held), RingBytes: w.ring, Given: w.tally.given,
		Refused: maps.Clone(w.tally.refused), Stats: w.tally.gone}
	for h := range w.held {
		if s, err := h.Stats(); err == nil {
			j.Stats = j.Stats.plus(s)
		}
	}
	return j
}
