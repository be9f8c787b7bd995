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
	if err := errors.Join(r.change(rec, c), r.save(rec)); err != nil {
		return fmt.Errorf("jail %s: %w", name, err)
	}
	return nil
}

// change carries a change out, or takes back what it has done.
func (r Registry) change(rec *record, c Change) (err error) {
	old := rec.Spec
	if c.Hostname != nil {
		if err := rec.setHostname(*c.Hostname); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, rec.setHostname(old.Hostname))
			}
		}()
	}
	if c.Addresses != nil {
		if err := r.readdress(rec, *c.Addresses); err != nil {
			return err
		}
	}
	if c.Params != nil {
		rec.Spec.Params = c.Params
	}
	if c.Persist != nil {
		return rec.setPersist(*c.Persist) // fails only if the jail has ended
	}
	return nil
}

func (rec *record) setHostname(hostname string) error {
	rec.Spec.Hostname = hostname
	return rec.First.rename(hostname)
}

// setPersist tells the first process whether it is to wait when all others have ended.
func (rec *record) setPersist(persist bool) error {
	sig := unix.SIGUSR1
	if persist {
		sig = unix.SIGUSR2
	}
	rec.Spec.Persist = persist
	return rec.First.signal(sig)
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
