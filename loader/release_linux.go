package loader

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Cookie is the kernel's number of the socket, which is never given again
// (SO_COOKIE of socket(7)).
func (c *Captive) Cookie() uint64 { return c.cookie }

// Release gives up the socket, which then ends with its last holder elsewhere.
// What is done through maps goes on: SetFilter, ClearFilter, SetScope, Revoke.
func (c *Captive) Release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.socket < 0 {
		return errClosed
	}
	c.place.Close() // it has been told
	// The number stays taken, for Close.
	nothing, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(nothing)
	if err := unix.Dup3(nothing, c.socket, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("release a captive socket: %w", err)
	}
	return nil
}

// PacketSockets are the cookies of all packet sockets of a namespace; nil: the
// caller's. One that exists may be missing while others end: the kernel lists
// them in parts.
func PacketSockets(ns Namespace) (cookies map[uint64]bool, err error) {
	if ns != nil {
		return packetSockets(ns)
	}
	return packetSockets(here{})
}

type here struct{}

func (here) Do(do func() error) error { return do() }
