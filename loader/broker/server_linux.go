package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"jailtap/bpf"
)

// Config says what a Server serves.
type Config struct {
	Captives Captives

	// Resolve finds the jail of a client. An error that is no Refusal is one with
	// CodePeer.
	Resolve func(*Peer) (*Jail, error)
	// Find finds a jail by its name, for Adopt.
	Find func(name string) (*Jail, error)
	// Compile compiles an expression of a jail's client. An error that is no Refusal is
	// one with CodeFilter.
	Compile func(ctx context.Context, jail, expression string, lt bpf.LinkType, snaplen int) (bpf.Program, error)

	// Label tells this Server's sockets from those of others on this machine, over
	// restarts: up to 12 bytes.
	Label string

	Log *slog.Logger // also the audit: a line for each socket given and each refusal

	MaxConnections int // at once; 0: 4096
	MaxPerUser     int // of them, of one user in one network namespace; 0: 1024
}

// A Server gives captive sockets.
type Server struct {
	Config

	mu          sync.Mutex
	wards       map[string]*ward
	connections map[user]int
	total       int
	stray       map[Code]uint64 // refused before there was a jail

	sweeps sweeps
}

// sweeps say when the Captives were swept. They belong to whoever sweeps.
type sweeps struct {
	last   time.Time
	buried time.Time // when a socket was last found to be no more
	due    bool      // one was, since
}

// A user is one of a network namespace: root of one container is not that of another.
type user struct {
	uid       uint32
	namespace NamespaceID
}

// NewServer makes a Server. It has to be closed.
func NewServer(cfg Config) *Server {
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 4096
	}
	if cfg.MaxPerUser == 0 {
		cfg.MaxPerUser = 1024
	}
	return &Server{Config: cfg, wards: map[string]*ward{}, connections: map[user]int{}, stray: map[Code]uint64{}}
}

// How long things may take, or rest.
const (
	promptly   = 10 * time.Millisecond  // after it was looked at, for one to ask as it was then
	patience   = 10 * time.Second       // for a client that has got nothing yet
	lastWords  = 100 * time.Millisecond // of one that will get nothing
	forever    = 1 << 62                // for one that has got something
	sendTime   = 5 * time.Second
	makeTime   = 10 * time.Second // for the scope and the filter
	sweepEvery = time.Second
	sweepRest  = 5 * time.Second
	fullSweep  = time.Minute
	idleWard   = time.Minute
)

// Adopt takes up the captive sockets that a Server with this label has left, and
// shuts those whose jail is not known, or no longer has the policy and the VLANs
// that they were made with. It is for before Serve.
func (s *Server) Adopt() error {
	found, err := s.Captives.Adopt(s.Label + "/")
	if err != nil {
		s.Log.Error("captives not adopted", "error", err)
	}
	var errs []error
	for _, c := range found {
		errs = append(errs, s.adopt(c))
	}
	return errors.Join(errs...)
}

func (s *Server) adopt(c Captive) error {
	name := strings.TrimPrefix(c.Label(), s.Label+"/")
	log := s.Log.With("jail", name, "cookie", c.Cookie())
	err := s.takeUp(name, c)
	if err == nil {
		log.Info("captive adopted")
		return nil
	}
	log.Warn("captive of no jail shut", "reason", err)
	return errors.Join(c.Revoke(), c.Close())
}

func (s *Server) takeUp(name string, c Captive) error {
	jail, err := s.Find(name)
	if err != nil {
		return err
	}
	w := s.ward(jail)
	ctx, cancel := context.WithTimeout(context.Background(), makeTime)
	defer cancel()
	if _, _, err := w.current(ctx); err != nil {
		return err
	}
	return w.adopt(c)
}

// Serve serves clients that connect to l until ctx ends, which is nil. It closes
// l. Sockets stay as they are with those who have them.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	defer l.Close()
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	running.Go(func() { s.sweepUntil(ctx) })
	const refusals = 64 // at once, beyond the connections that there may be
	places := make(chan struct{}, s.MaxConnections+refusals)
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors or memory, and that passes
			s.Log.Error("client not accepted", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			s.connected(ctx, conn)
		})
	}
}

// ward finds or makes the ward of a jail, and takes over its Scope.
func (s *Server) ward(j *Jail) *ward {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.wards[j.Name]
	if w != nil && w.touch() {
		j.Scope.Close()
		return w
	}
	if w != nil { // its scope was lost; its sockets are shut
		go w.close()
	}
	w = newWard(j, s.Log)
	s.wards[j.Name] = w
	return w
}

// touch keeps the ward from being swept, and reports whether it is of use.
func (w *ward) touch() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = time.Now()
	return w.failed == nil
}

// enter counts a connection in. leave is to be called at its end.
func (s *Server) enter(u user) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.total >= s.MaxConnections:
		return nil, Refuse(CodeLimit, "there are %d connections, and no more at once", s.total)
	case s.connections[u] >= s.MaxPerUser:
		return nil, Refuse(CodeLimit, "user %d has %d connections, and no more at once", u.uid, s.connections[u])
	}
	s.total++
	s.connections[u]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.connections[u]--; s.connections[u] == 0 {
			delete(s.connections, u)
		}
	}, nil
}

// sweepUntil forgets what is no more.
func (s *Server) sweepUntil(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.sweep(idleWard)
		}
	}
}

func (s *Server) sweep(idle time.Duration) {
	for _, w := range s.list() {
		buried, idles := w.sweep(idle)
		if w.idle(idle) {
			w.dropSpares(0)
		}
		if buried > 0 {
			s.sweeps.buried, s.sweeps.due = time.Now(), true
		}
		if idles {
			s.retire(w, idle)
		}
	}
	if !s.sweeps.now() {
		return
	}
	if err := s.Captives.Sweep(); err != nil {
		s.Log.Error("sweep", "error", err)
	}
}

// now reports whether it is time, and takes it that it is done. What the next socket
// needs as well is not taken away as soon as the last is gone.
func (s *sweeps) now() bool {
	if !(s.due && time.Since(s.buried) > sweepRest) && time.Since(s.last) < fullSweep {
		return false
	}
	s.last, s.due = time.Now(), false
	return true
}

// retire ends a ward, unless somebody has come for it meanwhile.
func (s *Server) retire(w *ward, idle time.Duration) {
	s.mu.Lock()
	_, idles := w.sweep(idle)
	if idles && s.wards[w.name] == w {
		delete(s.wards, w.name)
	}
	s.mu.Unlock()
	if idles {
		w.close()
	}
}

func (s *Server) list() []*ward {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*ward
	for _, w := range s.wards {
		all = append(all, w)
	}
	return all
}

// Stats are those of all jails, by name. The name "" is for requests of
// processes that are of no jail, or did not get as far.
func (s *Server) Stats() []JailStats {
	var all []JailStats
	for _, w := range s.list() {
		all = append(all, w.stats())
	}
	slices.SortFunc(all, func(a, b JailStats) int { return strings.Compare(a.Name, b.Name) })
	s.mu.Lock()
	defer s.mu.Unlock()
	stray := JailStats{Refused: map[Code]uint64{}}
	for code, n := range s.stray {
		stray.Refused[code] = n
	}
	return append([]JailStats{stray}, all...)
}

// Close gives up everything that the Server has. Captive sockets stay as they are
// with those who have them, until the next Server adopts them.
func (s *Server) Close() error {
	for _, w := range s.list() {
		w.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.wards)
	return nil
}

// label is what the kernel keeps of whose a socket is.
func (s *Server) label(jail string) string { return fmt.Sprintf("%s/%s", s.Label, jail) }
