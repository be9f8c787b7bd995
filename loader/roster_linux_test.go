package loader

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// testRoster opens a roster that is not at an interface.
func testRoster(t *testing.T, path string) *roster {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &roster{file: file, place: -1}
}

func TestAHundredTakeTurnsAtARoster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roster")
	var inside, turns, collisions atomic.Int32
	var all sync.WaitGroup
	for range 100 {
		r := testRoster(t, path)
		all.Go(func() {
			for range 3 {
				err := r.locked(func() error {
					if inside.Add(1) != 1 {
						collisions.Add(1)
					}
					time.Sleep(100 * time.Microsecond)
					inside.Add(-1)
					turns.Add(1)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if collisions.Load() != 0 || turns.Load() != 300 {
		t.Errorf("%d collisions, %d turns; want none and 300", collisions.Load(), turns.Load())
	}
}

// Who gives up takes nobody's turn, and may try again.
func TestARosterThatIsHeldForTooLongIsGivenUp(t *testing.T) {
	defer func(was time.Duration) { rosterPatience = was }(rosterPatience)
	rosterPatience = 50 * time.Millisecond
	path := filepath.Join(t.TempDir(), "roster")
	holder, other, third := testRoster(t, path), testRoster(t, path), testRoster(t, path)
	if err := holder.lock(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := other.lock(); !errors.Is(err, errBusy) {
			t.Fatalf("%v, want that it is busy", err)
		}
	}
	rosterPatience = 20 * time.Second
	if err := holder.unlock(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*roster{third, other, holder} {
		if err := r.locked(func() error { return nil }); err != nil {
			t.Error(err)
		}
	}
}

// As long as others come it is waited for longer.
func TestARosterThatOthersWriteIsNotGivenUp(t *testing.T) {
	defer func(was time.Duration) { rosterPatience = was }(rosterPatience)
	rosterPatience = time.Second
	path := filepath.Join(t.TempDir(), "roster")
	holder, other := testRoster(t, path), testRoster(t, path)
	if err := holder.lock(); err != nil {
		t.Fatal(err)
	}
	locked := make(chan error)
	go func() { locked <- other.lock() }()
	for range 15 {
		time.Sleep(rosterPatience / 10)
		holder.place = 0
		if err := holder.publish(hubEntry{}); err != nil {
			t.Fatal(err)
		}
	}
	holder.unlock()
	if err := <-locked; err != nil {
		t.Error(err)
	}
}
