package nsjail

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// An outcome is how a function ended: it returned err, it panicked, or, if
// neither, it called runtime.Goexit.
type outcome struct {
	err      error
	returned bool
	panicked any
}

// do uses a fresh goroutine, so that the caller's thread is never one that may
// have to be given up.
func (j *Jail) do(f func() error) error {
	done := make(chan outcome)
	go func() {
		var o outcome
		defer func() { done <- o }()
		j.inside(f, &o)
	}()
	o := <-done
	switch {
	case o.panicked != nil:
		panic(o.panicked)
	case !o.returned:
		runtime.Goexit()
	}
	return o.err
}

// inside runs f on a locked thread in the namespace. The thread is unlocked
// only if it is back where it was; else it ends with the goroutine, since
// whatever ran on it next would be in the jail.
func (j *Jail) inside(f func() error, o *outcome) {
	o.returned = true
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		o.err = fmt.Errorf("find the way back from %s: %w", j, err)
		return
	}
	defer home.Close()
	if err := unix.Setns(int(j.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		o.err = enterError(j, err)
		return
	}
	o.returned = false
	defer func() {
		o.panicked = recover()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	o.err = f()
	o.returned = true
}

func enterError(j *Jail, err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("enter %s: %w: it needs CAP_SYS_ADMIN (run with sudo)", j, err)
	}
	return fmt.Errorf("enter %s: %w", j, err)
}
