package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// counts are those of a capture. What an engine cannot count is nil.
type counts struct {
	Received uint64  `json:"received"` // by the filter, with those dropped
	Captured uint64  `json:"captured"` // printed or written
	Dropped  uint64  `json:"dropped"`  // by the kernel, for want of room
	Engine   string  `json:"engine"`
	Seen     *uint64 `json:"seen"`     // by the filter
	InScope  *uint64 `json:"in_scope"` // of those seen
	Matched  *uint64 `json:"matched"`  // of those in scope, by the user's filter
}

// print is how tcpdump ends.
func (c counts) print(w io.Writer) {
	for _, words := range c.words() {
		fmt.Fprintln(w, words)
	}
}

// line is what tcpdump says while it goes on (SIGINFO).
func (c counts) line() string { return strings.Join(c.words(), ", ") }

func (c counts) words() (list []string) {
	for _, part := range []struct {
		n    uint64
		what string
	}{
		{c.Captured, "captured"}, {c.Received, "received by filter"}, {c.Dropped, "dropped by kernel"},
	} {
		s := "s"
		if part.n == 1 {
			s = ""
		}
		list = append(list, fmt.Sprintf("%d packet%s %s", part.n, s, part.what))
	}
	return list
}

func (c counts) writeJSON(w io.Writer) error { return json.NewEncoder(w).Encode(c) }
