//go:build linux

package main

import (
	"fmt"
	"slices"

	"jailtap/bpf"
)

// A comparison says how a jail's capture differs from what it should hold. The
// numbers are frames.
type comparison struct {
	own     int // frames of the reference that are in scope
	foreign int // captured, and not in scope
	missed  int // in scope, and not captured
	extra   int // in scope and captured, more often than they were on the wire
}

func (c comparison) exact() bool { return c.foreign == 0 && c.missed == 0 && c.extra == 0 }

// compare holds captured, the frames of a capture with scope s, against
// reference, an unscoped capture of the same wire and time. Frames are the
// same if all of their bytes are; the same frame may come several times.
func compare(s bpf.Scope, reference, captured []string) comparison {
	var c comparison
	balance := make(map[string]int) // times on the wire less times captured
	for _, frame := range reference {
		if s.Match(bpf.Ethernet, []byte(frame)) {
			c.own++
			balance[frame]++
		}
	}
	for _, frame := range captured {
		if s.Match(bpf.Ethernet, []byte(frame)) {
			balance[frame]--
		} else {
			c.foreign++
		}
	}
	for _, n := range balance {
		c.missed += max(n, 0)
		c.extra += max(-n, 0)
	}
	return c
}

// between returns the frames behind the start marker and before the end marker.
func between(frames []string, start, end string) ([]string, error) {
	from := slices.Index(frames, start)
	to := slices.Index(frames, end)
	if from < 0 || to < from {
		return nil, fmt.Errorf("of %d frames, the start marker is number %d and the end marker %d (-1: missing)",
			len(frames), from, to)
	}
	return frames[from+1 : to], nil
}
