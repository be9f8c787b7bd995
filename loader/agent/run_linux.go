//go:build amd64 || arm64

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func run(ctx context.Context, cfg Config, argv []string) (status int, err error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)

	c, err := startCommand(cfg, argv)
	if err != nil {
		return 0, err
	}
	defer c.conn.Close()
	captives, closeAll, err := cfg.Open()
	if err != nil {
		c.abandon()
		return 0, err
	}
	defer closeAll()
	listener, err := c.release()
	if err != nil {
		c.abandon()
		return 0, err
	}
	defer listener.Close()

	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- Serve(serving, listener, captives, cfg.Options) }()
	if err := c.executed(argv[0]); err != nil {
		c.Wait()
		cancel()
		<-served
		return 0, err
	}
	status = c.wait(ctx, signals)
	return status, c.linger(ctx, signals, cancel, served)
}

// A command is the process of a command, or what is to become it.
type command struct {
	*exec.Cmd
	conn *os.File // SOCK_SEQPACKET; the end of it is that the command is executed
}

func startCommand(cfg Config, argv []string) (*command, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, &ExecError{argv[0], errors.Unwrap(err)}
	}
	spec, err := json.Marshal(childSpec{path, cfg.User})
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "agent"), os.NewFile(uintptr(pair[1]), "command")
	defer theirs.Close()
	c := &command{conn: ours, Cmd: &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{childName, string(spec)}, argv...),
		Stdin: orElse(cfg.Stdin, os.Stdin), Stdout: orElse(cfg.Stdout, os.Stdout), Stderr: orElse(cfg.Stderr, os.Stderr),
		ExtraFiles: []*os.File{theirs}, // childConn
	}}
	if cfg.Namespace != nil {
		err = cfg.Namespace.Do(c.Start)
	} else {
		err = c.Start()
	}
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start a process for %s: %w", argv[0], err)
	}
	return c, nil
}

func orElse(f, other *os.File) *os.File {
	if f != nil {
		return f
	}
	return other
}

// abandon ends a process that did not become the command.
func (c *command) abandon() {
	c.Process.Kill()
	c.Wait()
}

// release lets the child go on, up to the command, and returns the listener.
func (c *command) release() (*os.File, error) {
	if _, err := c.conn.Write([]byte{0}); err != nil {
		return nil, fmt.Errorf("the command's process is gone: %w", err)
	}
	text, rights := make([]byte, 1024), make([]byte, unix.CmsgSpace(4))
	n, rightsLen, _, _, err := unix.Recvmsg(int(c.conn.Fd()), text, rights, unix.MSG_CMSG_CLOEXEC)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, errors.New("the command's process has ended before its time")
	case text[0] != msgListener:
		return nil, errors.New(string(text[1:n]))
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rightsLen])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("no seccomp listener came: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("no seccomp listener came: %v", err)
	}
	return os.NewFile(uintptr(fds[0]), "seccomp listener"), nil
}

// executed returns nil when the child has become the command.
func (c *command) executed(name string) error {
	text := make([]byte, 64)
	n, err := unix.Read(int(c.conn.Fd()), text)
	if err != nil || n == 0 {
		return err
	}
	errno, err := strconv.Atoi(string(text[1:n]))
	if err != nil {
		return fmt.Errorf("bad message %q of the command's process", text[:n])
	}
	return &ExecError{name, unix.Errno(errno)}
}

// wait forwards signals until the command has ended.
func (c *command) wait(ctx context.Context, signals <-chan os.Signal) (status int) {
	ended := make(chan struct{})
	go func() {
		c.Wait()
		close(ended)
	}()
	for {
		select {
		case sig := <-signals:
			if !fromTerminal(sig) {
				c.Process.Signal(sig)
			}
		case <-ctx.Done():
			c.Process.Signal(unix.SIGTERM)
			ctx = context.WithoutCancel(ctx)
		case <-ended:
			how := c.ProcessState.Sys().(syscall.WaitStatus)
			if how.Signaled() {
				return 128 + int(how.Signal())
			}
			return how.ExitStatus()
		}
	}
}

// linger waits for the processes that the command has left behind.
func (c *command) linger(ctx context.Context, signals <-chan os.Signal, cancel func(), served <-chan error) error {
	for {
		select {
		case sig := <-signals:
			if ends(sig) {
				cancel()
			}
		case <-ctx.Done():
			cancel()
			ctx = context.WithoutCancel(ctx)
		case err := <-served:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}
}
