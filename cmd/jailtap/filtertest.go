package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"jailtap/internal/capfile"
)

// testOn runs a program over a capture file.
func (f *filterCommandFlags) testOn(a *app, j *judge) error {
	in := a.stdin
	if f.test != "-" {
		file, err := os.Open(f.test)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	out := bufio.NewWriter(a.stdout)
	if err := f.verdicts(in, out, j); err != nil {
		return fmt.Errorf("%s: %w", f.test, err)
	}
	if f.json {
		err := json.NewEncoder(out).Encode(struct {
			Packets uint64 `json:"packets"`
			InScope uint64 `json:"in_scope"`
			Matched uint64 `json:"matched"`
		}{j.seen, j.inScope, j.matched})
		if err != nil {
			return err
		}
	} else {
		fmt.Fprintf(out, "%d packets, %d in scope, %d matched\n", j.seen, j.inScope, j.matched)
	}
	return out.Flush()
}

// verdicts has every packet judged, and with -v prints what came out.
func (f *filterCommandFlags) verdicts(in io.Reader, out *bufio.Writer, j *judge) error {
	r, err := capfile.NewReader(in)
	if err != nil {
		return err
	}
	for {
		p, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		keep, inScope, err := j.verdict(&p)
		if err != nil {
			return err
		}
		switch {
		case !f.verbose:
		case f.json:
			fmt.Fprintf(out, "{\"packet\":%d,\"in_scope\":%t,\"verdict\":%d}\n", j.seen, inScope, keep)
		case !inScope:
			fmt.Fprintf(out, "%d: out of scope\n", j.seen)
		case keep == 0:
			fmt.Fprintf(out, "%d: in scope, rejected\n", j.seen)
		default:
			fmt.Fprintf(out, "%d: in scope, matched, verdict %d\n", j.seen, keep)
		}
	}
}
