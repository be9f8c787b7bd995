//go:build unix

package jail

import (
	"os"
	"os/signal"
	"syscall"
)

// wait waits for a process, and hands it signals.
func wait(process *os.Process) (exit int) {
	defer relay(func(sig syscall.Signal) { process.Signal(sig) })()
	return status(process.Wait())
}

// relay sends on the signals that this process gets, but leaves to the terminal what
// that sends to all in the foreground (SIGINT, SIGQUIT): the command has it already.
func relay(send func(syscall.Signal)) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range signals {
			if sig == syscall.SIGTERM || sig == syscall.SIGHUP {
				send(sig.(syscall.Signal))
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done // what it sends to may be closed now
	}
}

// status is a process's exit status as shells have it.
func status(state *os.ProcessState, err error) int {
	if err != nil {
		return 127
	}
	return exitStatus(state.Sys().(syscall.WaitStatus))
}

func exitStatus(how syscall.WaitStatus) int {
	if how.Signaled() {
		return 128 + int(how.Signal())
	}
	return how.ExitStatus()
}
