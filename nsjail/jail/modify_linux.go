//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func (r Registry) modify(name string, c Change) error {
	if err := r.prepare(); err != nil {
		return err
	}
	l, err := r.lock(name, patience)
	if err != nil {
		return fmt.Errorf("jail %s: %w", name, err)
	}
	defer l.release()
	rec, err := r.load(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !rec.wellAndAlive() {
		return fmt.Errorf("jail %s: %w", name, ErrUnknown)
	}
	if err != nil {
		return err
	}
	if err := r.change(rec, c); err != nil {
		return fmt.Errorf("jail %s: %w", name, err)
	}
	return r.save(rec)
}

// change carries a change out; what may fail comes first.
func (r Registry) change(rec *record, c Change) error {
	if c.Addresses != nil {
		if err := r.readdress(rec, *c.Addresses); err != nil {
			return err
		}
	}
	if c.Hostname != nil {
		if err := rec.First.rename(*c.Hostname); err != nil {
			return err
		}
		rec.Spec.Hostname = *c.Hostname
	}
	if c.Persist != nil {
		sig := unix.SIGUSR1
		if *c.Persist {
			sig = unix.SIGUSR2
		}
		if err := rec.First.signal(sig); err != nil {
			return err
		}
		rec.Spec.Persist = *c.Persist
	}
	return nil
}

// rename sets the host name of the UTS namespace that a process is in.
func (p process) rename(hostname string) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", p.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if !p.alive() { // so it was its own
		return errEnded
	}
	return onLostThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("host.hostname %q: %w", hostname, err)
		}
		return nil
	})
}
