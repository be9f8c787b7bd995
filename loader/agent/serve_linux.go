//go:build amd64 || arm64

package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// atOnce is how many notifications are being answered at any time. More wait
// in the kernel, where killing their callers ends them.
const atOnce = 32

type server struct {
	listener
	captives Captives
	log      *slog.Logger
	admit    func(tid int, waits func() bool) error // or nil
	cells    *cells
}

func serve(ctx context.Context, f *os.File, captives Captives, o Options) error {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.MaxCaptives == 0 {
		o.MaxCaptives = 256
	}
	s := &server{listener{int(f.Fd())}, captives, o.Log, o.Admit, newCells(o.MaxCaptives, captives.Existing)}
	defer s.cells.close()
	defer runtime.KeepAlive(f)
	err := s.loop(ctx)
	if errors.Is(err, errNobodyLeft) {
		return nil
	}
	return err
}

// loop returns when all answers have been given. An answer may take long where
// the caller's memory is a file of the caller's own (FUSE), but no longer than
// there are processes to serve it.
func (s *server) loop(ctx context.Context) error {
	w, done, err := newWaiter(ctx, s.listener)
	if err != nil {
		return err
	}
	defer done()
	var answers sync.WaitGroup
	defer answers.Wait()
	places := make(chan struct{}, atOnce)
	for {
		// A place first: what is received must be answered.
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
		n, err := s.receive()
		if err != nil {
			return err
		}
		if n == nil {
			<-places
			continue
		}
		answers.Go(func() {
			s.serve(n)
			<-places
		})
	}
}

func (s *server) serve(n *notification) {
	switch {
	case n.arch == nativeArch && n.nr == unix.SYS_SOCKET:
		s.socket(n)
	case n.arch == nativeArch && n.nr == unix.SYS_SETSOCKOPT:
		s.setsockopt(n)
	default: // the filter is somebody else's
		s.log.Warn("unexpected notification", "arch", n.arch, "syscall", n.nr, "tid", n.tid)
		s.answer(n, unix.ENOSYS)
	}
}
