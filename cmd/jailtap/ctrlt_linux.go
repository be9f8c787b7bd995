package main

import (
	"bytes"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ctrlTs tells of each Ctrl-T on a terminal until stop is called.
//
// Linux's terminals have no key that asks for a status (VSTATUS), but a second one
// that ends a line (VEOL of termios(3)). Ctrl-T is made that one, and the lines are
// read. The price is that the terminal shows ^T, and that whole lines which are typed
// meanwhile do not reach the shell afterwards; one that is not ended does, unless it is
// ended by Ctrl-T.
//
// The terminal is left alone while this process is in the background, where the
// kernel would stop it (SIGTTIN, SIGTTOU), and while somebody reads single keys there,
// such as a pager that shows the packets; and if it is another user's, as after su(1).
// SIGKILL, and a stop by Ctrl-Z, leave the setting; shells with line editing set their
// own.
func ctrlTs(stdin io.Reader) (typed <-chan struct{}, stop func()) {
	f, ok := stdin.(*os.File)
	if !ok || !hasTerminal(f) {
		return nil, func() {}
	}
	t, err := openTerminal(f)
	if err != nil {
		return nil, func() {}
	}
	w, err := newWaiter()
	if err != nil {
		t.close()
		return nil, func() {}
	}
	k := &keyboard{terminal: t, waiter: w, typed: make(chan struct{}, 1)}
	go k.watch()
	return k.typed, k.stop
}

// A keyboard is a terminal where Ctrl-T is looked for.
type keyboard struct {
	*terminal
	*waiter
	typed chan struct{}

	mu      sync.Mutex
	stopped bool
	isSet   bool
}

// lookAgain is how often it is looked whose the terminal is, in milliseconds. Nothing
// tells of that.
const lookAgain = 1000

// watch looks at lines until stop has done with the terminal.
func (k *keyboard) watch() {
	defer k.close()
	line := make([]byte, 4096) // no line is longer
	for {
		fd := k.fd
		if !k.ours() {
			fd = -1 // poll(2) ignores it
		}
		ready, stopped := k.wait(fd, lookAgain)
		if stopped {
			return
		}
		if !ready || !k.ours() {
			continue
		}
		n, err := unix.Read(k.fd, line)
		if err == nil && bytes.HasSuffix(line[:n], []byte{ctrlT}) {
			_, _ = unix.Write(k.fd, []byte("\n")) // behind ^T
			select {
			case k.typed <- struct{}{}:
			default: // it is about to be answered
			}
		}
	}
}

// ours reports whether what is typed on the terminal are lines for this process, and
// sees to it that Ctrl-T ends one.
func (k *keyboard) ours() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped || !isForeground(k.fd) {
		return false
	}
	s, err := unix.IoctlGetTermios(k.fd, unix.TCGETS)
	if err != nil || s.Lflag&unix.ICANON == 0 {
		return false
	}
	if s.Cc[unix.VEOL] == ctrlT {
		return true
	}
	s.Cc[unix.VEOL] = ctrlT
	k.isSet = unix.IoctlSetTermios(k.fd, unix.TCSETS, s) == nil
	return k.isSet
}

// stop gives Ctrl-T back. Others may have changed other settings meanwhile.
func (k *keyboard) stop() {
	defer k.waiter.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	if !k.isSet || !isForeground(k.fd) {
		return
	}
	if s, err := unix.IoctlGetTermios(k.fd, unix.TCGETS); err == nil && s.Cc[unix.VEOL] == ctrlT {
		s.Cc[unix.VEOL] = k.was.Cc[unix.VEOL]
		_ = unix.IoctlSetTermios(k.fd, unix.TCSETS, s)
	}
}
