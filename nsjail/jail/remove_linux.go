//go:build amd64 || arm64

package jail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a removal waits for another command that is at work on the
// jail, such as one that starts it.
const patience = 30 * time.Second

func (r Registry) remove(ctx context.Context, name string, s Starter) error {
	if err := r.prepare(); err != nil {
		return err
	}
	l, err := r.lock(name, patience)
	if err != nil {
		return fmt.Errorf("jail %s: %w", name, err)
	}
	defer l.release()
	rec, err := r.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r.forget(name) // what a command has left that was killed before it had one
	}
	if err != nil {
		return err
	}
	j := &Jail{r, rec}
	if !rec.wellAndAlive() {
		return r.clean(rec)
	}
	return j.takeDown(ctx, s)
}

// takeDown runs the commands of the stop, as far as they succeed, and removes the
// jail whatever they do.
func (j *Jail) takeDown(ctx context.Context, s Starter) error {
	j.rec.Phase = removing
	errs := []error{j.registry.save(j.rec)}
	if s.OnlyRemove {
		return errors.Join(append(errs, j.registry.clean(j.rec))...)
	}
	c := &j.rec.Spec.Commands
	host := j.hostCommands(s)
	errs = append(errs, host.runAll(ctx, "exec.prestop", c.Prestop), j.stopInside(ctx, s))
	j.terminate(c.StopTimeout)
	errs = append(errs, j.registry.clean(j.rec))
	errs = append(errs, host.runAll(ctx, "exec.poststop", c.Poststop), host.runAll(ctx, "exec.release", c.Release))
	return errors.Join(errs...)
}

// terminate asks the processes of a jail to end, and waits until the first one is
// alone, which hands the signal on. Who has not ended then is killed.
func (j *Jail) terminate(most time.Duration) {
	if most == 0 || len(j.processes()) <= 1 || j.rec.First.signal(unix.SIGTERM) != nil {
		return
	}
	for end := time.Now().Add(most); len(j.processes()) > 1 && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
}
