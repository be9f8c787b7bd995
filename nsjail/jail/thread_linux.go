//go:build amd64 || arm64

package jail

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onLostThread runs f on a thread that ends with it, so that f may leave namespaces
// for good. It never is the main thread, which Go would keep, and what /proc/self
// shows is about that one.
func onLostThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// As long as this goroutine has the main thread, another one has another.
			err := onLostThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f() // and the goroutine ends without an unlock
	}()
	return <-done
}
