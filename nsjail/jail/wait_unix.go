//go:build unix

package jail

import (
	"os"
	"os/signal"
	"syscall"
)

// wait leaves to the terminal what it sends to all in the foreground (SIGINT,
// SIGQUIT): the command has that already.
func wait(process *os.Process) (exit int) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	defer func() {
		signal.Stop(signals)
		close(signals)
	}()
	go func() {
		for sig := range signals {
			if sig == syscall.SIGTERM || sig == syscall.SIGHUP {
				process.Signal(sig)
			}
		}
	}()
	return status(process.Wait())
}

// status is a process's exit status as shells have it.
func status(state *os.ProcessState, err error) int {
	if err != nil {
		return 127
	}
	how := state.Sys().(syscall.WaitStatus)
	if how.Signaled() {
		return 128 + int(how.Signal())
	}
	return how.ExitStatus()
}
