package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"jailtap/internal/capfile"
	"jailtap/internal/packetline"
	"jailtap/loader"
)

// A session is one run of the command capture.
type session struct {
	*app
	flags    *captureFlags
	source   *scopeSource // nil: no scope
	user     *userFilter
	format   capfile.Format
	rotation rotation
	duration time.Duration // 0: no end

	out       sink
	statsFile *outFile
	captured  atomic.Uint64
	first     firstPackets // with -c, what is put
	shown     uint64       // captured, when the counter was shown
	counter   bool         // on the terminal, without a line feed
}

// Why a capture ends that is no failure.
var errEnoughPackets = errors.New("enough packets")

func (s *session) Close() {
	if s.source != nil {
		s.source.Close()
	}
}

// openOutput opens what is written to. If that fails nothing is left behind.
// now is when the first packet arrives, or the capture begins.
func (s *session) openOutput(now time.Time, first *capfile.Interface, scope string, names func(uint32) string, counted func() counts) error {
	if s.flags.stats != "" && s.flags.stats != "-" {
		var err error
		if s.statsFile, err = create(s.flags.stats); err != nil {
			return err
		}
	}
	if s.flags.writeFile == "" {
		printer := packetline.Printer{Quiet: s.flags.quiet, Verbose: s.flags.verbose > 0, InterfaceName: names}
		s.out = newTextSink(s.stdout, printer, s.flags.lineFlush || s.flags.eachFlush)
		return nil
	}
	files := &fileSink{rotation: s.rotation, format: s.format, each: s.flags.eachFlush, first: first, counts: counted, opened: now,
		about: func(i *capfile.Interface) capfile.Interface {
			return capfile.Interface{LinkType: i.LinkType, SnapLen: uint32(s.user.snaplen), Name: i.Name, Filter: s.user.text, Description: scope}
		}}
	if s.flags.writeFile == "-" {
		files.stdout = s.stdout
	}
	if err := files.open(); err != nil {
		if s.statsFile != nil {
			s.statsFile.discard()
		}
		return err
	}
	if name, err := files.fileName(now.Add(time.Hour), 0); s.rotation.every > 0 && s.rotation.size == 0 && err == nil && name == files.file.Name() {
		s.say("warning: the name %s does not change with time (%%H%%M%%S would): each file replaces the one before", name)
	}
	s.out = files
	return nil
}

// put hands packets on, and ends the capture if the last one is among them.
func (s *session) put(packets loader.Packets, iface *capfile.Interface) error {
	if s.flags.count > 0 {
		s.first = firstPackets{packets, s.flags.count - s.captured.Load()}
		packets = &s.first
	}
	n, err := s.out.put(packets, iface)
	if all := s.captured.Add(uint64(n)); err == nil && all == s.flags.count {
		err = errEnoughPackets
	}
	return err
}

// firstPackets are so many packets at most.
type firstPackets struct {
	loader.Packets
	left uint64
}

func (f *firstPackets) Next(p *loader.Packet) bool {
	if f.left == 0 {
		return false
	}
	f.left--
	return f.Packets.Next(p)
}

// showCount shows how many packets have been captured.
func (s *session) showCount() {
	if n := s.captured.Load(); n != s.shown {
		fmt.Fprintf(s.stderr, "\rGot %d", n)
		s.shown, s.counter = n, true
	}
}

// printCounts prints the three lines that tcpdump ends with.
func (s *session) printCounts(c counts) {
	s.endLine()
	c.print(s.stderr)
}

// endLine leaves the line of the counter.
func (s *session) endLine() {
	if s.counter {
		fmt.Fprintln(s.stderr)
		s.counter = false
	}
}

// finish closes everything and says why the capture ended, which is nil if it
// should have.
func (s *session) finish(why error, c counts) error {
	err := s.out.close(c)
	if why == nil || errors.Is(why, errEnoughPackets) || errors.Is(why, errEnoughFiles) {
		why = err
	}
	s.printCounts(c)
	if s.stdoutClosed(why) {
		why = nil
	}
	if err := s.writeStats(c); why == nil {
		why = err
	}
	return why
}

// stdoutClosed says whether the reader of standard output has had enough.
func (s *session) stdoutClosed(err error) bool {
	toStdout := s.flags.writeFile == "" || s.flags.writeFile == "-"
	return toStdout && errors.Is(err, syscall.EPIPE)
}

func (s *session) writeStats(c counts) error {
	switch {
	case s.flags.stats == "-":
		return c.writeJSON(s.stdout)
	case s.statsFile == nil:
		return nil
	}
	err := c.writeJSON(s.statsFile)
	if err2 := s.statsFile.Close(); err == nil {
		err = err2
	}
	return err
}
