package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A terminal is one of the caller's, whose settings are changed for a while.
type terminal struct {
	fd  int
	was unix.Termios // the settings that are restored

	mu    sync.Mutex
	isRaw bool
}

// hasTerminal reports whether a file is a terminal.
func hasTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// hasForeground reports whether a file is a terminal with this process in the
// foreground.
func hasForeground(f *os.File) bool {
	return hasTerminal(f) && isForeground(int(f.Fd()))
}

// isForeground reports whether this process is in the foreground of a terminal. In the
// background, that it reads or changes settings would stop it.
func isForeground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// openTerminal opens a terminal once more, so that reads do not wait: another process
// may take what there is to read.
func openTerminal(f *os.File) (*terminal, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the terminal once more: %w", err)
	}
	settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("read the terminal's settings: %w", err)
	}
	return &terminal{fd: fd, was: *settings}, nil
}

func (t *terminal) close() { unix.Close(t.fd) }

// raw hands all that is typed on as it is, and shows what is written as it is: these
// are the settings of cfmakeraw (termios(3)).
func (t *terminal) raw() error {
	s := t.was
	s.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	s.Oflag &^= unix.OPOST
	s.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	s.Cflag = s.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	s.Cc[unix.VMIN], s.Cc[unix.VTIME] = 1, 0
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := unix.IoctlSetTermios(t.fd, unix.TCSETS, &s); err != nil {
		return fmt.Errorf("set the terminal to raw: %w", err)
	}
	t.isRaw = true
	return nil
}

// restore undoes raw. That it fails means that there is no such terminal any more.
func (t *terminal) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isRaw {
		_ = unix.IoctlSetTermios(t.fd, unix.TCSETS, &t.was)
		t.isRaw = false
	}
}

// A waiter waits for descriptors until it is stopped.
type waiter struct{ reading, stopping *os.File }

func newWaiter() (*waiter, error) {
	r, w, err := os.Pipe()
	return &waiter{r, w}, err
}

func (w *waiter) stop() { w.stopping.Close() }

// wait reports whether there is something to read from a descriptor, its end too, or
// the waiter is stopped. With a time in milliseconds that is not negative it may be
// neither.
func (w *waiter) wait(fd, most int) (ready, stopped bool) {
	fds := []unix.PollFd{{Fd: int32(w.reading.Fd()), Events: unix.POLLIN}, {Fd: int32(fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, most)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, true
		}
		return fds[1].Revents != 0, fds[0].Revents != 0
	}
}
