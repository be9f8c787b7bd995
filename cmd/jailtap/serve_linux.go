package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/pflag"

	"jailtap/loader"
	"jailtap/loader/agent/oci"
	"jailtap/loader/broker"
)

// daemon is the command serve.
func (f *serveFlags) daemon(ctx context.Context, a *app, fs *pflag.FlagSet) error {
	if err := dropCapabilities(f.capabilities()); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	jails, oneJail, err := f.registry(fs, log)
	if err != nil {
		return err
	}
	warden, err := loader.OpenWarden(loader.WardenConfig{Pins: f.pins, Cgroup: f.cgroup})
	if err != nil {
		return err
	}
	defer func() { a.sayError(warden.Close()) }()
	c := &compilers{benches: map[string]*bench{}}
	defer c.close()
	server := broker.NewServer(broker.Config{
		Captives: broker.Wardens(warden),
		Resolve:  func(p *broker.Peer) (*broker.Jail, error) { return resolve(jails, p) },
		Find:     jails.find,
		Compile:  c.compile,
		Label:    labelOf(f.socket),
		Log:      log,
	})
	defer server.Close()
	// First the socket, which one daemon has, then what the one before has left.
	l, err := f.listen(oneJail)
	if err != nil {
		return err
	}
	if err := server.Adopt(); err != nil {
		log.Error("captives of the daemon before could not be shut", "error", err)
	}
	return f.all(ctx, a, &services{broker: server, warden: warden, log: log}, l)
}

// labelOf tells the daemon's sockets from those of another daemon.
func labelOf(socket string) string {
	if abs, err := filepath.Abs(socket); err == nil {
		socket = abs
	}
	return fmt.Sprintf("%.4x", sha256.Sum256([]byte(socket)))
}

// listen takes the sockets that systemd passes, and makes the others.
func (f *serveFlags) listen(oneJail bool) (l listeners, err error) {
	if l, err = activated(); err != nil {
		return l, err
	}
	if l.broker == nil {
		if l.broker, err = listenBroker(f.socket, f.socketMode(oneJail), f.group); err != nil {
			return l, err
		}
	}
	if l.oci == nil && f.ociSocket != "" {
		l.oci, err = oci.Listen(f.ociSocket)
	}
	return l, err
}

// services run until the daemon ends.
type services struct {
	broker *broker.Server
	warden *loader.Warden
	log    *slog.Logger

	running sync.WaitGroup
	end     context.CancelCauseFunc
}

// start runs a service. When one fails all end.
func (s *services) start(run func() error) {
	s.running.Go(func() {
		if err := run(); err != nil {
			s.end(err)
		}
	})
}

// all runs everything that there is to serve until ctx ends, or something fails.
func (f *serveFlags) all(ctx context.Context, a *app, s *services, l listeners) error {
	parent := ctx
	ctx, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	if f.metrics != "" {
		m, err := listenMetrics(f.metrics, f.metricsAnywhere)
		if err != nil {
			return err
		}
		s.start(func() error { return serveMetrics(ctx, m, s.broker) })
	}
	if l.oci != nil {
		server, err := a.ociServer(s.warden, s.log)
		if err != nil {
			return err
		}
		s.start(func() error { return server.Serve(ctx, l.oci) })
	}
	s.start(func() error { return s.broker.Serve(ctx, l.broker) })
	s.start(func() error { return s.watchdog(ctx) })
	s.tell(sd.SdNotifyReady)
	s.log.Info("ready", "socket", l.broker.Addr(), "version", application())
	<-ctx.Done()
	s.tell(sd.SdNotifyStopping)
	s.running.Wait()
	if err := context.Cause(ctx); parent.Err() == nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// tell tells systemd, if that has started the daemon (sd_notify(3)).
func (s *services) tell(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		s.log.Warn("systemd is not told", "state", state, "error", err)
	}
}

// watchdog tells systemd that the daemon lives, as long as the broker answers.
func (s *services) watchdog(ctx context.Context) error {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return err
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		s.broker.Stats() // waits for all locks
		s.tell(sd.SdNotifyWatchdog)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
