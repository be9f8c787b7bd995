package capfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Reader reads a capture file of either format.
type Reader struct {
	in        *bufio.Reader
	offset    int64 // of what is read next
	start     int64 // of the record or block being read
	buf       []byte
	order     binary.ByteOrder
	format    Format
	nano      bool // pcap: time stamps in nanoseconds
	ifaces    []*ngInterface
	described bool      // first is known
	first     Interface // of the file; pcap has no other
}

// NewReader reads the head of a capture file and recognises its format.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 256<<10)}
	head, err := r.in.Peek(4)
	switch {
	case len(head) == 0 && err == io.EOF:
		return nil, r.errorf("the file is empty")
	case err == io.EOF:
		return nil, r.errorf("the file is too short for a capture file")
	case err != nil:
		return nil, err
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(head) {
		case magicMicro, magicNano:
			r.order, r.format = order, Pcap
			return r, r.readPcapHeader()
		}
	}
	if binary.BigEndian.Uint32(head) == blockSection {
		r.format = PcapNG
		return r, r.readFirstSection()
	}
	return nil, r.errorf("% x is the start of neither a pcap nor a pcapng file", head)
}

// Format is the format of the file.
func (r *Reader) Format() Format { return r.format }

// Interface is the first one of the file, as far as it is known: before the
// first packet of a pcapng file it is not.
func (r *Reader) Interface() Interface { return r.first }

// Next reads the next packet, whose Data stays valid until the next call. At
// the end of the file the error is io.EOF.
func (r *Reader) Next() (Packet, error) {
	r.start = r.offset
	if r.format == Pcap {
		return r.nextPcap()
	}
	return r.nextNG()
}

// take reads the next n bytes of a record behind the have that buf begins
// with, and returns all of them.
func (r *Reader) take(have, n int) ([]byte, error) {
	r.buf = slices.Grow(r.buf[:have], n)[:have+n]
	got, err := io.ReadFull(r.in, r.buf[have:])
	r.offset += int64(got)
	switch {
	case err == nil:
		return r.buf, nil
	case have+got == 0 && err == io.EOF:
		return nil, io.EOF // between two records
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &FormatError{Offset: r.start, Err: io.ErrUnexpectedEOF,
			Reason: fmt.Sprintf("the file ends %d bytes before the end of what begins here", n-got)}
	default:
		return nil, err
	}
}

func (r *Reader) errorf(format string, args ...any) error {
	return &FormatError{Offset: r.start, Reason: fmt.Sprintf(format, args...)}
}
