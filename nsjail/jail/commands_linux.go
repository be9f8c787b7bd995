//go:build amd64 || arm64

package jail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/nsjail"
)

// reminder is how long a command may run before it is told of.
const reminder = 10 * time.Second

// hostCommands run on the host.
type hostCommands struct {
	jail *Jail
	out  io.Writer
}

func (j *Jail) hostCommands(s Starter) hostCommands {
	out := s.Out
	if out == nil {
		out = io.Discard
	}
	return hostCommands{j, out}
}

// runAll runs lines for sh(1), one after the other, up to one that fails.
func (h hostCommands) runAll(ctx context.Context, param string, lines []string) error {
	for _, line := range lines {
		out, ok := h.out.(*os.File) // one that is handed on, and not waited for
		if !ok {
			var err error
			if out, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
				return err
			}
			defer out.Close()
		}
		process, err := h.start(line, out)
		if err != nil {
			return fmt.Errorf("jail %s: %s: %w", h.jail.rec.Spec.Name, param, err)
		}
		w := watch{h.jail, param, line, process, h.out}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (h hostCommands) start(line string, out *os.File) (*os.Process, error) {
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "JAIL="+h.jail.rec.Spec.Name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to be killed with its children
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd.Process, nil
}

// A watch is for one command.
type watch struct {
	jail    *Jail
	param   string
	line    string
	process *os.Process
	out     io.Writer
}

// wait waits for a command to succeed. It says what it waits for, and kills what
// takes too long.
func (w watch) wait(ctx context.Context) error {
	timeout := w.jail.rec.Spec.Commands.Timeout
	if timeout > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it did not end within %v (exec.timeout)", timeout))
		defer cancel()
	}
	ended := make(chan int, 1)
	go func() { ended <- status(w.process.Wait()) }()
	remind := time.NewTicker(reminder)
	defer remind.Stop()
	for {
		select {
		case s := <-ended:
			if s != 0 {
				return &StatusError{Jail: w.jail.rec.Spec.Name, Param: w.param, Command: w.line, Status: s}
			}
			return nil
		case <-remind.C:
			w.tell()
		case <-ctx.Done():
			line, _ := nsjail.SigInfo(w.process.Pid)
			w.kill()
			<-ended
			return fmt.Errorf("jail %s: %s: %q: killed: %w; %s", w.jail.rec.Spec.Name, w.param, w.line, context.Cause(ctx), line)
		}
	}
}

// tell says what is waited for, as Ctrl-T would.
func (w watch) tell() {
	line, err := nsjail.SigInfo(w.process.Pid)
	if err != nil { // it has just ended
		return
	}
	fmt.Fprintf(w.out, "jail %s: %s: waiting for %q: %s\n", w.jail.rec.Spec.Name, w.param, w.line, line)
}

// kill kills a command and, on the host, its process group. What it has started in
// the jail ends with the jail.
func (w watch) kill() {
	if pgid, err := unix.Getpgid(w.process.Pid); err == nil && pgid == w.process.Pid {
		unix.Kill(-pgid, unix.SIGKILL)
	}
	w.process.Kill()
}

// startInside runs exec.start and the command, which the first process may have.
func (j *Jail) startInside(ctx context.Context, s Starter, first *firstCommand) error {
	c := &j.rec.Spec.Commands
	if err := j.runInside(ctx, "exec.start", c.Start, s); err != nil {
		return err
	}
	if len(c.Command) == 0 {
		return nil
	}
	n, err := j.runCommand(s, first)
	if err != nil {
		return err
	}
	if n != 0 {
		return &StatusError{Jail: j.rec.Spec.Name, Param: "command", Command: strings.Join(c.Command, " "), Status: n}
	}
	return nil
}

func (j *Jail) runCommand(s Starter, first *firstCommand) (status int, err error) {
	if first != nil {
		return first.run()
	}
	c, err := j.startCommand(s)
	if err != nil {
		return 1, err
	}
	if s.Run != nil {
		return s.Run(j, *c)
	}
	return startAndWait(j, *c)
}

// startCommand is the command of the start.
func (j *Jail) startCommand(s Starter) (*Command, error) {
	env, user, dir, err := j.surroundings()
	if err != nil {
		return nil, err
	}
	return &Command{Argv: j.rec.Spec.Commands.Command, Env: env, User: user, Dir: dir, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr}, nil
}

func startAndWait(j *Jail, c Command) (status int, err error) {
	process, err := j.start(c)
	if err != nil {
		return 1, err
	}
	return Wait(process), nil
}

func (j *Jail) stopInside(ctx context.Context, s Starter) error {
	return j.runInside(ctx, "exec.stop", j.rec.Spec.Commands.Stop, s)
}

// runInside runs lines for the jail's sh(1). What they print goes to the console
// log, and to the error of one that fails.
func (j *Jail) runInside(ctx context.Context, param string, lines []string, s Starter) error {
	if len(lines) == 0 {
		return nil
	}
	console, err := j.openConsole()
	if err != nil {
		return err
	}
	defer console.Close()
	env, user, dir, err := j.surroundings()
	if err != nil {
		return err
	}
	for _, line := range lines {
		begin, err := console.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		process, err := j.start(Command{Argv: []string{"/bin/sh", "-c", line}, Env: env, User: user, Dir: dir, Stdout: console, Stderr: console})
		if err != nil {
			return err
		}
		w := watch{j, param, line, process, j.hostCommands(s).out}
		if err := w.wait(ctx); err != nil {
			return withOutput(err, console, begin)
		}
	}
	return nil
}

// withOutput adds the end of what a command printed to its error.
func withOutput(err error, console *os.File, begin int64) error {
	const most = 1000 // bytes
	end, seekErr := console.Seek(0, io.SeekEnd)
	if seekErr != nil {
		return err
	}
	text := make([]byte, min(most, max(end-begin, 0)))
	n, _ := console.ReadAt(text, end-int64(len(text)))
	output := printable(string(text[:n]))
	if failed, ok := errors.AsType[*StatusError](err); ok {
		failed.Output = output
		return failed
	}
	if output == "" {
		return err
	}
	return fmt.Errorf("%w; its output ends with: %s", err, output)
}

// printable makes one line of what a jail has printed, with nothing in it that a
// terminal obeys.
func printable(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", " | ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, text)
}
