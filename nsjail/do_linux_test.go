package nsjail

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// where is the namespace of the calling thread.
func where(t *testing.T) ID {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return ID{Dev: uint64(st.Dev), Ino: st.Ino}
}

// threadsIn counts this process's threads in a namespace. What made the
// namespace may have left one there.
func threadsIn(t *testing.T, j *Jail) (n int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		var st unix.Stat_t
		err := unix.Stat("/proc/self/task/"+task.Name()+"/ns/net", &st)
		if err == nil && st.Ino == j.ID().Ino { // an error: the thread has ended
			n++
		}
	}
	return n
}

func checkThreadsIn(t *testing.T, j *Jail, before int) {
	t.Helper()
	if after := threadsIn(t, j); after > before {
		t.Errorf("%d threads are left in the namespace", after-before)
	}
}

func TestDoRunsInsideAndReturnsTheError(t *testing.T) {
	j := mustOpen(t, testutil.NewNamespace(t).Name)
	before := threadsIn(t, j)
	want := errors.New("from inside")
	var inside ID
	err := j.Do(func() error {
		inside = where(t)
		return want
	})
	if err != want || inside != j.ID() {
		t.Errorf("Do: %v in %v; want %v in %v", err, inside, want, j.ID())
	}
	checkThreadsIn(t, j, before)
}

func TestAPanicInDoReachesTheCallerAndLeavesNoThreadInside(t *testing.T) {
	j := mustOpen(t, testutil.NewNamespace(t).Name)
	before := threadsIn(t, j)
	func() {
		defer func() {
			if got := recover(); got != "from inside" {
				t.Errorf("recovered %v", got)
			}
		}()
		j.Do(func() error { panic("from inside") })
	}()
	checkThreadsIn(t, j, before)
}

func TestGoexitInDoEndsTheCallerAndLeavesNoThreadInside(t *testing.T) {
	j := mustOpen(t, testutil.NewNamespace(t).Name)
	before := threadsIn(t, j)
	ended, returned := make(chan struct{}), false
	go func() {
		defer close(ended)
		j.Do(func() error { runtime.Goexit(); return nil })
		returned = true
	}()
	if <-ended; returned {
		t.Error("Do returned")
	}
	checkThreadsIn(t, j, before)
}

func TestAGoroutineStartedInDoRunsOutside(t *testing.T) {
	j := mustOpen(t, testutil.NewNamespace(t).Name)
	j.Do(func() error {
		outside := make(chan ID)
		go func() { outside <- where(t) }()
		if got := <-outside; got == j.ID() {
			t.Error("it runs inside")
		}
		return nil
	})
}
