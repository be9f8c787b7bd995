package kernel

import (
	"sync"
	"time"
)

var loading struct {
	sync.Mutex
	n int
}

// throttle is to be called before each program that is loaded or attached. The
// kernel frees the one before it after an RCU grace period; more than a
// thousand that wait for it can hang some kernels, so it gets time to.
func throttle() {
	const few, graceful = 64, 30 * time.Millisecond
	loading.Lock() // also while it sleeps: nobody else is to load any
	defer loading.Unlock()
	if loading.n++; loading.n%few == 0 {
		time.Sleep(graceful)
	}
}
