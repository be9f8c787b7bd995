package main

import (
	"bufio"
	"io"
	"os"
	"time"

	"jailtap/internal/capfile"
	"jailtap/internal/packetline"
)

// A frame is a packet on its way to a sink, which does not keep it.
type frame struct {
	time   time.Time
	data   []byte
	length int // on the wire
	iface  *capfile.Interface
}

// A sink is where captured packets go.
type sink interface {
	put(f *frame) error
	flush() error
	close(c counts) error // with the counts of the whole capture
}

// A textSink prints a line a packet.
type textSink struct {
	out     *bufio.Writer
	printer packetline.Printer
	each    bool // flush each line
	line    []byte
}

func newTextSink(out io.Writer, printer packetline.Printer, each bool) *textSink {
	return &textSink{out: bufio.NewWriterSize(out, 64<<10), printer: printer, each: each || isTerminal(out)}
}

func (s *textSink) put(f *frame) error {
	s.line = s.printer.Append(s.line[:0], f.time, f.iface.LinkType, f.data, f.length)
	s.line = append(s.line, '\n')
	if _, err := s.out.Write(s.line); err != nil {
		return err
	}
	if s.each {
		return s.out.Flush()
	}
	return nil
}

func (s *textSink) flush() error       { return s.out.Flush() }
func (s *textSink) close(counts) error { return s.out.Flush() }

// isTerminal says whether somebody may be reading along.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
