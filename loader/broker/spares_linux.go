package broker

import (
	"slices"
	"time"

	"jailtap/loader"
)

const (
	sparesOfKind = 2                    // that are kept ready
	sparesOfWard = 4                    // of all kinds
	stockRest    = 5 * time.Millisecond // in which who was just given one has the CPUs
	largestSpare = 8 << 20              // bytes of the ring; nobody has asked for it yet
)

// A kind is what of a captive socket is settled before it is somebody's.
type kind struct {
	namespace NamespaceID
	iface     string
	ring      int
	immediate bool
}

// A stored spare is one of a ward's.
type stored struct {
	Spare
	kind kind
}

// takeSpare takes one out of the store; nil: there is none.
func (w *ward) takeSpare(k kind) Spare {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.spares, func(s stored) bool { return s.kind == k })
	if i < 0 {
		return nil
	}
	s := w.spares[i].Spare
	w.spares = slices.Delete(w.spares, i, i+1)
	return s
}

// store keeps a spare, unless the ward ends.
func (w *ward) store(s stored) (kept bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return false
	}
	w.spares = append(w.spares, s)
	return true
}

// takeSpares empties the store down to so many, the oldest first.
func (w *ward) takeSpares(leave int) []stored {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := max(len(w.spares)-leave, 0)
	gone := slices.Clone(w.spares[:n])
	w.spares = slices.Delete(w.spares, 0, n)
	return gone
}

// dropSpares closes spares, and reports whether there were any.
func (w *ward) dropSpares(leave int) bool {
	gone := w.takeSpares(leave)
	for _, s := range gone {
		if err := s.Close(); err != nil {
			w.log.Error("close a spare captive", "error", err)
		}
	}
	return len(gone) > 0
}

// missing is how many spares of a kind there should be and are not.
func (w *ward) missing(k kind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := sparesOfKind
	for _, s := range w.spares {
		if s.kind == k {
			n--
		}
	}
	return n
}

// restock prepares sockets like one that was just given, for those who will ask for the
// same: what takes long is done then. It closes the jail's namespace, when it is done
// with it.
func (w *ward) restock(jail *Jail, k kind, cfg loader.CaptiveConfig, prepare func(loader.CaptiveConfig) (Spare, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil || w.stocking || k.iface == "" || k.ring > largestSpare {
		jail.Namespace.Close()
		return
	}
	w.stocking = true
	w.stockers.Add(1)
	time.AfterFunc(stockRest, func() { // a goroutine that sleeps would have a thread woken now
		defer w.stockers.Done()
		defer jail.Namespace.Close()
		w.stock(k, cfg, prepare)
	})
}

// stock prepares what is missing.
func (w *ward) stock(k kind, cfg loader.CaptiveConfig, prepare func(loader.CaptiveConfig) (Spare, error)) {
	defer w.stocked()
	for w.missing(k) > 0 {
		w.dropSpares(sparesOfWard - 1)
		s, err := prepare(cfg)
		if err != nil {
			w.log.Warn("no spare captive", "error", err)
			return
		}
		if !w.store(stored{s, k}) {
			s.Close()
			return
		}
	}
}

func (w *ward) stocked() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stocking = false
}

// idle reports whether nobody has asked for anything for a while.
func (w *ward) idle(since time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.used) >= since
}

// dropSpares closes those of all jails, when descriptors are short.
func (s *Server) dropSpares() (dropped bool) {
	for _, w := range s.list() {
		if w.dropSpares(0) {
			dropped = true
		}
	}
	return dropped
}
