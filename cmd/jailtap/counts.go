package main

import (
	"encoding/json"
	"fmt"
	"io"
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
	for _, line := range []struct {
		n    uint64
		what string
	}{
		{c.Captured, "captured"}, {c.Received, "received by filter"}, {c.Dropped, "dropped by kernel"},
	} {
		s := "s"
		if line.n == 1 {
			s = ""
		}
		fmt.Fprintf(w, "%d packet%s %s\n", line.n, s, line.what)
	}
}

func (c counts) writeJSON(w io.Writer) error { return json.NewEncoder(w).Encode(c) }
