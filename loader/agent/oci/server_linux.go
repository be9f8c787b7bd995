//go:build amd64 || arm64

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"jailtap/loader/agent"
)

type server struct {
	mu     sync.Mutex
	fleets map[string]*fleet
}

func (s *Server) serve(ctx context.Context, l *net.UnixListener) error {
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var served sync.WaitGroup
	defer served.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		conn, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors or memory, and that passes
			s.log().Error("container runtime not accepted", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		served.Go(func() { s.connected(ctx, conn) })
	}
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.Default()
	}
	return s.Log
}

// connected serves what a runtime sends. If nothing good comes the listener is
// closed, so that what it would tell of is ENOSYS.
func (s *Server) connected(ctx context.Context, conn *net.UnixConn) {
	m, err := s.receive(ctx, conn)
	if err != nil {
		s.log().Warn("container runtime refused", "error", err)
		return
	}
	defer m.listener.Close()
	log := s.log().With("container", m.state.State.ID, "pid", m.state.Pid)
	log.Info("container served")
	if err := s.answer(ctx, m, log); err != nil {
		log.Warn("container not served any more", "error", err)
		return
	}
	log.Info("container has ended")
}

// receive takes the message of a runtime and closes the connection.
func (s *Server) receive(ctx context.Context, conn *net.UnixConn) (*message, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := allowed(conn); err != nil {
		return nil, err
	}
	return receive(conn)
}

// answer answers a container's calls until nobody is there to make any.
func (s *Server) answer(ctx context.Context, m *message, log *slog.Logger) error {
	t := &tenant{server: s, log: log, container: Container{
		ID: m.state.State.ID, Annotations: m.state.State.Annotations, Metadata: m.state.Metadata,
	}}
	defer t.leave()
	return agent.Serve(ctx, m.listener, t, agent.Options{Log: sparing(log), MaxCaptives: s.MaxCaptives, Admit: t.admit})
}

// A fleet is one that tenants share who are of the same container, as far as what
// decides about it goes.
type fleet struct {
	agent.Captives
	release func()
	key     string
	tenants int
}

// join finds or makes the fleet for a container in a place.
func (s *Server) join(c Container, p *place) (*fleet, error) {
	particulars, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprint(p.id, string(particulars))

	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fleets[key]
	if f == nil {
		f = &fleet{key: key}
		c.Namespace = p.path()
		if f.Captives, f.release, err = s.Fleet(c); err != nil {
			return nil, err
		}
		if s.fleets == nil {
			s.fleets = map[string]*fleet{}
		}
		s.fleets[key] = f
	}
	f.tenants++
	return f, nil
}

func (s *Server) leave(f *fleet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.tenants--; f.tenants == 0 {
		delete(s.fleets, f.key)
		f.release()
	}
}
