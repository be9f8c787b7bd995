package main

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/nsjail"
	"jailtap/nsjail/jail"
)

// onTerminal runs a command on a terminal of a jail's own, which is relayed to the
// caller's on standard input. Those of the command's descriptors that are a terminal
// are the jail's then; others stay what they are.
//
// No process of the jail has a descriptor of the caller's terminal, or has it as its
// controlling terminal: it can neither type there (TIOCSTI) nor change its settings.
// What it prints is shown there as it is, as ssh(1) does.
//
// Whatever way the relay ends, but for SIGKILL, the caller's terminal is as it was.
func onTerminal(j *jail.Jail, c jail.Command) (status int, err error) {
	if !hasTerminal(os.Stdin) {
		return 1, errNoTTY
	}
	r := &relay{}
	if r.host, err = openTerminal(os.Stdin); err != nil {
		return 1, err
	}
	if r.input, err = newWaiter(); err != nil {
		return 1, err
	}
	if r.inside, err = j.OpenTerminal(); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 4) // before the terminal is raw, so that none leaves it so
	signal.Notify(signals, unix.SIGWINCH, unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT)
	defer signal.Stop(signals)
	defer r.hangUp()
	if err := r.begin(&c); err != nil {
		return 1, err
	}
	process, err := j.Start(c)
	if err != nil {
		return 1, err
	}
	return r.run(process, signals), nil
}

var errNoTTY = errors.New("the input device is not a TTY: a terminal in a jail is relayed to one that is standard input")

// A relay joins the caller's terminal and one of a jail's.
type relay struct {
	host   *terminal
	inside *os.File // the master of the jail's
	input  *waiter  // for what is typed
	quoted bool     // the last key that was typed quotes the next

	isHungUp atomic.Bool

	mu      sync.Mutex
	out     *os.File // what the jail prints goes there
	midLine bool     // what went there last does not end a line
}

// begin gives a command the jail's terminal in place of the caller's. It starts as
// that is, which becomes raw.
func (r *relay) begin(c *jail.Command) error {
	c.Terminal = r.inside
	for _, f := range []**os.File{&c.Stdin, &c.Stderr, &c.Stdout} {
		if hasTerminal(*f) {
			r.out, *f = *f, nil
		}
	}
	err := r.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &r.host.was) })
	if err != nil {
		return err
	}
	r.resize()
	return r.host.raw()
}

// control does something with the descriptor of the jail's terminal. Fd would make
// reads of it wait for ever.
func (r *relay) control(do func(fd int) error) error {
	conn, err := r.inside.SyscallConn()
	if err != nil {
		return err
	}
	if err2 := conn.Control(func(fd uintptr) { err = do(int(fd)) }); err2 != nil {
		return err2
	}
	return err
}

// resize makes the jail's terminal as large as the caller's; the kernel tells those
// who have it in the foreground. A terminal may have no size.
func (r *relay) resize() {
	if size, err := unix.IoctlGetWinsize(r.host.fd, unix.TIOCGWINSZ); err == nil {
		_ = r.control(func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size) })
	}
}

// patience is how long a command may go on after a signal before it loses its
// terminal. Shells ignore SIGTERM, but not that.
const patience = time.Second

// run relays until the command ends. What a signal means the command decides:
// jail.Wait hands SIGTERM and SIGHUP on, and the others, which did not come from the
// jail's terminal, this does.
func (r *relay) run(process *os.Process, signals <-chan os.Signal) (status int) {
	ended, printed, typed := make(chan int, 1), make(chan struct{}), make(chan struct{})
	go func() { ended <- jail.Wait(process) }()
	go func() {
		defer close(printed)
		r.relayOutput()
	}()
	go func() {
		defer close(typed)
		r.relayInput()
	}()
	var late <-chan time.Time
	var finished chan struct{}
	for {
		select {
		case sig := <-signals:
			switch sig {
			case unix.SIGWINCH:
				r.resize()
				continue
			case unix.SIGINT, unix.SIGQUIT:
				process.Signal(sig)
			}
			if late == nil {
				late = time.After(patience)
			}
		case <-late:
			r.hangUp()
			if finished != nil {
				return status
			}
		case status = <-ended:
			if r.isHungUp.Load() {
				return status
			}
			finished = make(chan struct{})
			go func() {
				defer close(finished)
				r.finish(printed, typed)
			}()
		case <-finished:
			return status
		}
	}
}

// unused is how long, in milliseconds, a terminal is left alone that nobody has open.
const unused = 20

// relayOutput shows what the jail prints until its terminal is hung up, or finish
// ends it.
func (r *relay) relayOutput() {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.inside.Read(buf)
		r.print(buf[:n])
		if errors.Is(err, unix.EIO) { // nobody has it open at the moment
			if _, stopped := r.input.wait(-1, unused); stopped {
				return
			}
		} else if err != nil {
			return
		}
	}
}

// finish shows what the command has printed to the last byte, and ends the relay. A
// process that the command has left behind may print more, and keeps the terminal
// from an end: what the terminal can hold is enough.
func (r *relay) finish(printed, typed <-chan struct{}) {
	r.input.stop()
	r.inside.SetDeadline(time.Unix(1, 0)) // wakes both
	<-typed
	<-printed
	r.inside.SetDeadline(time.Time{})
	r.drain()
}

// held is more than what a pty holds of what was written to it: 8 KiB in the kernel's
// drivers/tty/pty.c, which may be exceeded by one write, and 4 KiB in n_tty.c.
const held = 64 << 10

// drain shows what there is to read without waiting.
func (r *relay) drain() {
	conn, err := r.inside.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4096)
	for n, sum := 1, 0; n > 0 && sum < held; sum += n {
		err := conn.Read(func(fd uintptr) bool {
			var readErr error
			if n, readErr = unix.Read(int(fd), buf); readErr != nil {
				n = 0 // EAGAIN, or EIO if nobody has the terminal open
			}
			return true
		})
		if err != nil {
			return
		}
		r.print(buf[:n])
	}
}

// print shows something to the caller, or hangs up.
func (r *relay) print(text []byte) {
	if len(text) == 0 {
		return
	}
	r.mu.Lock()
	_, err := r.out.Write(text)
	r.midLine = text[len(text)-1] != '\n'
	r.mu.Unlock()
	if err != nil {
		r.hangUp()
	}
}

// hangUp takes the terminal from the jail's processes, which get SIGHUP, and gives
// the caller's back.
func (r *relay) hangUp() {
	r.isHungUp.Store(true)
	r.inside.Close()
	r.host.restore()
}

// relayInput hands on what is typed.
func (r *relay) relayInput() {
	keys := make([]byte, 4096)
	for {
		ready, stopped := r.input.wait(r.host.fd, -1)
		if stopped {
			return
		}
		if !ready {
			continue
		}
		n, err := unix.Read(r.host.fd, keys)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if n <= 0 { // the caller's terminal is gone
			r.hangUp()
			return
		}
		if err := r.typed(keys[:n]); err != nil && !errors.Is(err, unix.EIO) {
			return
		}
	}
}

// ctrlT is the key that FreeBSD's terminals answer (VSTATUS of its termios(4)).
const ctrlT = 'T' & 0x1f

// typed hands keys on, but for a Ctrl-T that is to be answered.
func (r *relay) typed(keys []byte) error {
	var settings *unix.Termios
	err := r.control(func(fd int) (err error) {
		settings, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	if err != nil {
		return err
	}
	begin := 0
	for i, key := range keys {
		if !r.isStatus(key, settings) {
			continue
		}
		if _, err := r.inside.Write(keys[begin:i]); err != nil {
			return err
		}
		r.answer()
		begin = i + 1
		if settings.Cc[unix.VEOL] == ctrlT { // somebody there answers as well: see ctrlTs
			begin = i
		}
	}
	_, err = r.inside.Write(keys[begin:])
	return err
}

// isStatus reports whether a key asks for the status, as FreeBSD's terminals decide
// (ttydisc_rint of its sys/kern/tty_ttydisc.c): where lines are edited and keys send
// signals. Ctrl-V (VLNEXT) before it makes it a key like any other.
func (r *relay) isStatus(key byte, s *unix.Termios) bool {
	const edited = unix.ICANON | unix.IEXTEN
	edits, quoted := s.Lflag&edited == edited, r.quoted
	r.quoted = edits && !quoted && key == s.Cc[unix.VLNEXT]
	return key == ctrlT && edits && !quoted && s.Lflag&unix.ISIG != 0
}

// answer shows FreeBSD's line about the jail's terminal, on a line of its own. Linux
// has no SIGINFO that the jail's processes could get.
func (r *relay) answer() {
	line, err := nsjail.TerminalInfo(r.inside)
	if err != nil {
		return // the terminal was hung up
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.midLine {
		line = "\r\n" + line
	}
	r.midLine = false
	_, _ = unix.Write(r.host.fd, []byte(line+"\r\n")) // what does not fit is not worth waiting for
}
