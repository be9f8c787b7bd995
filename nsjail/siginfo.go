package nsjail

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"
)

// A Process is what FreeBSD's terminal tells of a process at Ctrl-T.
type Process struct {
	PID      int
	Command  string        // without path; may have any bytes
	State    string        // what it waits for in FreeBSD's words, or running, suspended, zombie
	Runnable bool          // it runs, or would if there were a CPU
	Zombie   bool          // it has ended and nobody has waited for it
	Real     time.Duration // since it was started
	User     time.Duration
	System   time.Duration
	CPU      float64 // percent of one CPU, at the moment
	Resident int64   // memory in KiB
}

// Line is FreeBSD's line for the process (tty_info of sys/kern/tty_info.c), for
// a load as in /proc/loadavg, without a newline. Characters of the command that
// are not printable are question marks: who is looked at must not write to the
// looker's terminal.
func (p Process) Line(load float64) string {
	return fmt.Sprintf("%s cmd: %s %d [%s] %sr %su %ss %d%% %dk",
		loadWords(load), printable(p.Command), p.PID, printable(p.State),
		seconds(p.Real), seconds(p.User), seconds(p.System), int(p.CPU+0.5), p.Resident)
}

// loadWords is how FreeBSD's line begins, whatever follows.
func loadWords(load float64) string {
	hundredths := int(load*100 + 0.5)
	return fmt.Sprintf("load: %d.%02d ", hundredths/100, hundredths%100)
}

// seconds cuts a time to hundredths, as FreeBSD does.
func seconds(d time.Duration) string {
	n := d / (10 * time.Millisecond)
	return fmt.Sprintf("%d.%02d", n/100, n%100)
}

// printable replaces what a terminal might obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}

// comparePicked is less than 0 if FreeBSD's terminal tells of a rather than of
// b: of what is runnable, then of what uses more CPU, then of what is not a
// zombie, then of the higher pid (proc_compare of sys/kern/tty_info.c).
func comparePicked(a, b Process) int {
	return cmp.Or(
		cmp.Compare(number(b.Runnable), number(a.Runnable)),
		cmp.Compare(b.CPU, a.CPU),
		cmp.Compare(number(a.Zombie), number(b.Zombie)),
		cmp.Compare(b.PID, a.PID),
	)
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Foreground is the process of a terminal's foreground process group that
// FreeBSD would tell of. The terminal may be a pty's either side. That there is
// none is an error that wraps fs.ErrNotExist. It takes a tenth of a second, in
// which it looks who uses the CPU.
func Foreground(tty *os.File) (pid int, err error) { return foreground(tty) }

// SigInfo is FreeBSD's line for a process at Ctrl-T, without a newline, for
// example
//
//	load: 0.45  cmd: cat 2324 [ttyin] 1.24r 0.00u 0.00s 0% 600k
//
// What processes of other users wait for needs CAP_SYS_PTRACE; without it is
// unknown. It takes a tenth of a second. If there is no such process the error
// wraps fs.ErrNotExist.
func SigInfo(pid int) (string, error) { return sigInfo(pid) }

// TerminalInfo is FreeBSD's line for a terminal at Ctrl-T, without a newline: that
// of SigInfo for its Foreground, or that there is none. It takes a tenth of a second.
func TerminalInfo(tty *os.File) (string, error) { return terminalInfo(tty) }
