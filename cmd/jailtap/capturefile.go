package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"jailtap/bpf"
	"jailtap/internal/capfile"
	"jailtap/loader"
)

// fromFile captures from a capture file: scope and filter run in the VM.
func (s *session) fromFile(ctx context.Context, name string) error {
	in, label := s.stdin, "standard input"
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := s.notOverInput(file); err != nil {
			return err
		}
		in, label = file, name
	}
	r, err := capfile.NewReader(in)
	if err != nil {
		return fmt.Errorf("%s: %w", label, err)
	}
	var scope *bpf.Scope
	words := "no scope"
	if s.source != nil {
		now, err := s.source.now()
		if err != nil {
			return err
		}
		scope, words = &now, "scope: "+s.source.describe(now)
	}
	f := &fileCapture{session: s, r: r, judge: newJudge(scope, s.user, ownDialect()), label: label}
	return f.run(ctx, words)
}

// notOverInput refuses to write over the file that is being read.
func (s *session) notOverInput(in *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Stat(s.flags.writeFile)
	if err == nil && os.SameFile(info, out) {
		return fmt.Errorf("%s is to be read: write another file", s.flags.writeFile)
	}
	return nil
}

type fileCapture struct {
	*session
	r      *capfile.Reader
	judge  *judge
	label  string
	packet [1]loader.Packet
	list   loader.PacketList // of it
}

func (f *fileCapture) run(ctx context.Context, scope string) error {
	// The first packet comes first: it shows that the filter has a meaning for
	// its link type, before anything is written.
	p, keep, err := f.next()
	if err != nil && err != io.EOF {
		return err
	}
	now, iface := time.Now(), f.r.Interface()
	first := &iface
	if err == nil {
		now, first = p.Time, p.Interface
	}
	if err := f.openOutput(now, first, scope, nil, f.counts); err != nil {
		return err
	}
	fmt.Fprintf(f.stderr, "reading from %s, link-type %s, snapshot length %d bytes\n%s; engine vm\n",
		f.label, linkTypeName(first.LinkType), first.SnapLen, scope)

	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	for err == nil && ctx.Err() == nil {
		if keep > 0 {
			data := p.Data[:min(len(p.Data), int(min(keep, uint32(f.user.snaplen))))]
			f.packet[0] = loader.Packet{Time: p.Time, Data: data, Len: p.Len}
			f.list = f.packet[:]
			if err = f.put(&f.list, p.Interface); err != nil {
				break
			}
		}
		p, keep, err = f.next()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return f.finish(err, f.counts())
}

// next reads a packet and judges it.
func (f *fileCapture) next() (p capfile.Packet, keep uint32, err error) {
	if p, err = f.r.Next(); err != nil {
		if err != io.EOF {
			err = fmt.Errorf("%s: %w", f.label, err)
		}
		return p, 0, err
	}
	keep, _, err = f.judge.verdict(&p)
	return p, keep, err
}

func (f *fileCapture) counts() counts {
	j := f.judge
	return counts{Received: j.matched, Captured: f.captured.Load(), Engine: "vm", Seen: &j.seen, InScope: &j.inScope, Matched: &j.matched}
}
