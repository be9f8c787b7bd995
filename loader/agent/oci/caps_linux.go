//go:build amd64 || arm64

package oci

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// confined checks that a thread has no CAP_NET_RAW, with which nothing that it
// is given would confine it: it could have a packet socket without us (io_uring).
// Whoever configures a container so should hear of it.
func confined(tid int) error {
	var sets [2]unix.CapUserData
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(tid)}
	if err := unix.Capget(header, &sets[0]); err != nil {
		return fmt.Errorf("capabilities of thread %d: %w", tid, err)
	}
	if sets[0].Permitted&(1<<unix.CAP_NET_RAW) != 0 {
		return fmt.Errorf("thread %d has CAP_NET_RAW, with which it sees what it likes: take it from the container", tid)
	}
	return nil
}
