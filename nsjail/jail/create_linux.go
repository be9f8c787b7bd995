//go:build amd64 || arm64

package jail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// moment is how long a lock may outlast a command that was killed: a child that was
// about to be executed has it until then.
const moment = 500 * time.Millisecond

func (r Registry) create(ctx context.Context, spec Spec, s Starter) (*Jail, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	if spec.BPF && r.Agent == nil {
		return nil, fmt.Errorf("jail %s: allow.bpf: there is no agent that would make its packet sockets", spec.Name)
	}
	if err := r.prepare(); err != nil {
		return nil, err
	}
	l, err := r.lock(spec.Name, moment)
	if errors.Is(err, errBusy) {
		return nil, fmt.Errorf("jail %s: %w: it is being made or removed", spec.Name, ErrExists)
	}
	if err != nil {
		return nil, fmt.Errorf("jail %s: %w", spec.Name, err)
	}
	defer l.release()
	if err := r.vacate(spec.Name); err != nil {
		return nil, err
	}
	j, err := r.begin(spec)
	if err != nil {
		return nil, err
	}
	ends, err := j.bringUp(ctx, s)
	if err != nil || ends {
		// What is undone is what a record has: that of a killed command, too.
		return j, errors.Join(err, r.clean(j.rec))
	}
	return j, nil
}

// vacate makes sure that there is no jail of a name. The caller has the lock.
func (r Registry) vacate(name string) error {
	rec, err := r.load(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case rec.wellAndAlive():
		return fmt.Errorf("jail %s: %w: it has jid %d; remove it first (jailtap jail -r %s)", name, ErrExists, rec.JID, name)
	}
	return r.clean(rec)
}

// begin writes a jail's first record.
func (r Registry) begin(spec Spec) (*Jail, error) {
	path, err := filepath.Abs(spec.Path)
	if err != nil {
		return nil, err
	}
	if path == "/" {
		return nil, fmt.Errorf("jail %s: path is /: the host's own root keeps nobody in", spec.Name)
	}
	spec.Path = path
	spec.Hostname = cmp.Or(spec.Hostname, spec.Name)
	_, dir, err := r.cgroup(spec.Name)
	if err != nil {
		return nil, err
	}
	rec := &record{Spec: spec, JID: spec.JID, Phase: creating, Cgroup: dir}
	if err := r.claim(rec); err != nil {
		return nil, err
	}
	return &Jail{r, rec}, nil
}

// bringUp makes what is recorded, and runs the commands of the start. ends says
// that all that ran has ended, and nothing wants the jail to stay.
func (j *Jail) bringUp(ctx context.Context, s Starter) (ends bool, err error) {
	c := &j.rec.Spec.Commands
	host := j.hostCommands(s)
	if err := host.runAll(ctx, "exec.prepare", c.Prepare); err != nil {
		return false, err
	}
	if err := host.runAll(ctx, "exec.prestart", c.Prestart); err != nil {
		return false, err
	}
	first, err := j.construct(s)
	if err != nil {
		return false, fmt.Errorf("jail %s: %w", j.rec.Spec.Name, err)
	}
	defer first.close()
	if err := host.runAll(ctx, "exec.created", c.Created); err != nil {
		return false, err
	}
	if err := j.startInside(ctx, s, first); err != nil {
		return false, err
	}
	if err := host.runAll(ctx, "exec.poststart", c.Poststart); err != nil {
		return false, err
	}
	return j.settle()
}

// construct makes the jail, its first process and its network.
func (j *Jail) construct(s Starter) (*firstCommand, error) {
	spec := &j.rec.Spec
	root, dir, err := j.registry.cgroup(spec.Name)
	if err != nil {
		return nil, err
	}
	c := &construction{spec: spec, cgroupRoot: root, cgroup: dir}
	if j.firstStarts(s) {
		if c.command, err = j.startCommand(s); err != nil {
			return nil, err
		}
	}
	if err := onLostThread(c.run); err != nil {
		return nil, err
	}
	first, err := c.finish()
	if err == nil {
		err = j.publish(c.agent.pid)
	}
	if err != nil {
		first.close()
		return nil, err
	}
	return first, nil
}

// publish records the first process, and makes the network. With that the jail is
// found, and entered, so all that it is held to is there already.
func (j *Jail) publish(first int) (err error) {
	if j.rec.First, err = identify(first); err != nil {
		return err
	}
	if err := j.registry.save(j.rec); err != nil {
		return err
	}
	return j.registry.addNetwork(j.rec)
}

// settle leaves the jail to itself.
func (j *Jail) settle() (ends bool, err error) {
	if !j.rec.Spec.Persist {
		if len(j.processes()) <= 1 {
			return true, nil
		}
		if err := j.rec.First.signal(unix.SIGUSR1); err != nil {
			return true, nil // the first process has ended, and with it all
		}
	}
	j.rec.Phase = running
	return false, j.registry.save(j.rec)
}

// signal sends a signal to a process and no other.
func (p process) signal(sig unix.Signal) error {
	f, err := p.open()
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.PidfdSendSignal(int(f.Fd()), sig, nil, 0)
}
