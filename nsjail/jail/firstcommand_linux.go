//go:build amd64 || arm64

package jail

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A firstCommand is the command of a jail's start as a child of the jail's first
// process. It waits to be executed. A process that enters the jail has to be started
// from jailtap, which is large, and takes longer.
type firstCommand struct {
	jail, name string
	pidfd      *os.File
	agent      *agent // the first process; the control socket is the command's too
}

// firstStarts reports whether the first process starts the command: nothing runs
// before it that could change who it runs as, and nobody wants a process to attend to.
func (j *Jail) firstStarts(s Starter) bool {
	c := &j.rec.Spec.Commands
	return len(c.Command) > 0 && len(c.Created)+len(c.Start) == 0 && s.Run == nil && !j.rec.Spec.BPF
}

// run lets the command go and waits for its end, as Wait does.
func (f *firstCommand) run() (exit int, err error) {
	defer relay(func(sig syscall.Signal) { unix.PidfdSendSignal(int(f.pidfd.Fd()), sig, nil, 0) })()
	if err := f.agent.release(); err != nil {
		return 128 + int(unix.SIGKILL), nil // the jail was removed
	}
	r, err := f.agent.read()
	switch {
	case err != nil:
		return 128 + int(unix.SIGKILL), nil
	case r.Step == atExec:
		return 1, &ExecError{f.jail, f.name, r.err()}
	case r.err() != nil:
		return 1, fmt.Errorf("jail %s: %s: %w", f.jail, f.name, r.err())
	}
	return exitStatus(syscall.WaitStatus(r.Value)), nil
}

// close leaves the command to the first process. One that was not run ends.
func (f *firstCommand) close() {
	if f != nil {
		f.agent.control.Close()
		f.pidfd.Close()
	}
}
