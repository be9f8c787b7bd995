package main

import (
	"bufio"
	"io"
	"os"

	"jailtap/internal/capfile"
	"jailtap/internal/packetline"
	"jailtap/loader"
)

// A sink is where captured packets go.
type sink interface {
	// put takes packets, which it does not keep. n is how many are done if there is
	// an error.
	put(packets loader.Packets, iface *capfile.Interface) (n int, err error)
	flush() error
	close(c counts) error // with the counts of the whole capture
}

// A textSink prints a line a packet.
type textSink struct {
	out     *bufio.Writer
	printer packetline.Printer
	each    bool // flush each line
	packet  loader.Packet
	line    []byte
}

func newTextSink(out io.Writer, printer packetline.Printer, each bool) *textSink {
	return &textSink{out: bufio.NewWriterSize(out, 64<<10), printer: printer, each: each || isTerminal(out)}
}

func (s *textSink) put(packets loader.Packets, iface *capfile.Interface) (n int, err error) {
	for p := &s.packet; packets.Next(p); n++ {
		s.line = s.printer.Append(s.line[:0], p.Time, iface.LinkType, p.Data, p.Len)
		s.line = append(s.line, '\n')
		if _, err = s.out.Write(s.line); err == nil && s.each {
			err = s.out.Flush()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
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
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && !isNull(info)
}

// isNull says whether a file is /dev/null, a character device as terminals are.
func isNull(info os.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(info, null)
}
