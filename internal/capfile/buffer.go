package capfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// bufferSize is how many bytes are gathered before they are written.
const bufferSize = 128 << 10

// A buffer gathers whole records and writes them together.
type buffer struct {
	out    io.Writer
	name   string
	record func(b []byte) int // length of the record that b begins with
	buf    []byte
	before int64 // bytes in out
	err    error // of the first write that failed; nothing is written after it
}

// size is how many bytes the file has, or will have once they are written.
func (b *buffer) size() int64 { return b.before + int64(len(b.buf)) }

// need sees to it that n more bytes fit.
func (b *buffer) need(n int) {
	if len(b.buf)+n > cap(b.buf) {
		b.makeRoom(n)
	}
}

// extend adds n bytes, which fit and which the caller makes a whole record.
func (b *buffer) extend(n int) []byte {
	b.buf = b.buf[:len(b.buf)+n]
	return b.buf[len(b.buf)-n:]
}

// makeRoom writes out what there is.
func (b *buffer) makeRoom(n int) {
	b.flush()
	b.buf = slices.Grow(b.buf, n)
}

// done is called when buf ends with a whole record.
func (b *buffer) done() error {
	if len(b.buf) < bufferSize {
		return b.err
	}
	return b.flush()
}

func (b *buffer) flush() error {
	if b.err != nil || len(b.buf) == 0 {
		b.buf = b.buf[:0]
		return b.err
	}
	n, err := b.out.Write(b.buf)
	if err != nil {
		b.fail(n, err)
	}
	b.before += int64(n)
	b.buf = b.buf[:0]
	return b.err
}

// fail takes the record that was written in part off the end of the file
// again, if it is a file that can be cut.
func (b *buffer) fail(written int, err error) {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // "write " and the name it has for the system
	}
	b.err = fmt.Errorf("writing %s: %w", b.name, err)
	whole := 0
	for {
		n := b.record(b.buf[whole:])
		if whole+n > written {
			break
		}
		whole += n
	}
	file, ok := b.out.(interface {
		io.Seeker
		Stat() (fs.FileInfo, error)
		Truncate(int64) error
	})
	if !ok || whole == written {
		return
	}
	info, statErr := file.Stat()
	if statErr != nil || !info.Mode().IsRegular() {
		return
	}
	// The position, since the file may be another's standard output that did
	// not begin empty.
	end, seekErr := file.Seek(0, io.SeekCurrent)
	if seekErr == nil {
		seekErr = file.Truncate(end - int64(written-whole))
	}
	if seekErr != nil {
		b.err = fmt.Errorf("%w (and its last packet is not whole: %v)", b.err, seekErr)
	}
}
