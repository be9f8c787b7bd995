package loader

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"
)

// A stampFormat says what the first 16 bytes of a record are: the low bits of
// a BPF_T_ value (net/bpf.h). The bits above say by which clock.
type stampFormat uint32

const (
	stampMicro stampFormat = iota // BPF_T_MICROTIME: seconds and microseconds
	stampNano                     // BPF_T_NANOTIME: seconds and nanoseconds
	stampBin                      // BPF_T_BINTIME: seconds and 2^-64 seconds
	stampNone                     // BPF_T_NONE: zeros

	stampMask stampFormat = 3 // BPF_T_FORMAT_MASK
)

// Where the fields of struct bpf_hdr and of struct bpf_xhdr are: on 64-bit
// systems in the same places. All are little-endian on the systems that
// tap_freebsd.go is built for.
const (
	hdrSec   = 0  // 8 bytes
	hdrFrac  = 8  // 8 bytes
	hdrCap   = 16 // 4 bytes: of the frame, how much follows
	hdrData  = 20 // 4 bytes: the frame's length on the wire
	hdrLen   = 24 // 2 bytes: from the start of the record to the frame
	hdrBytes = 26 // the header at its shortest

	bpfAlignment = 8 // BPF_ALIGNMENT: records begin at multiples of it
)

// bpfRecords are the records of one read(2) from a bpf(4) device.
type bpfRecords struct {
	format stampFormat
	buf    []byte
	off    int // of the next record
}

// A bpfRecord is a frame as bpf(4) delivers it.
type bpfRecord struct {
	time   time.Time // zero with stampNone
	data   []byte    // in the buffer that was read
	length int       // of the frame on the wire
}

func (r *bpfRecords) more() bool { return r.off < len(r.buf) }

// next takes a record. An error means that nothing after it can be found.
func (r *bpfRecords) next() (bpfRecord, error) {
	rest := r.buf[r.off:]
	if len(rest) < hdrBytes {
		return r.corrupt("%d bytes are no header", len(rest))
	}
	caplen, datalen := binary.LittleEndian.Uint32(rest[hdrCap:]), binary.LittleEndian.Uint32(rest[hdrData:])
	start := int(binary.LittleEndian.Uint16(rest[hdrLen:]))
	switch {
	case start < hdrBytes || start > len(rest):
		return r.corrupt("a header of %d bytes", start)
	case uint64(caplen) > uint64(len(rest)-start):
		return r.corrupt("%d bytes of a frame where there are %d", caplen, len(rest)-start)
	case caplen > datalen:
		return r.corrupt("%d bytes of a frame of %d", caplen, datalen)
	}
	end := start + int(caplen)
	// The last record of a read is not padded.
	r.off += min((end+bpfAlignment-1)&^(bpfAlignment-1), len(rest))
	return bpfRecord{r.format.time(rest), rest[start:end:end], int(datalen)}, nil
}

func (r *bpfRecords) corrupt(format string, args ...any) (bpfRecord, error) {
	err := fmt.Errorf("corrupt record at byte %d of %d from bpf(4): %s", r.off, len(r.buf), fmt.Sprintf(format, args...))
	r.off = len(r.buf)
	return bpfRecord{}, err
}

// time is that at the start of a record.
func (f stampFormat) time(record []byte) time.Time {
	sec := int64(binary.LittleEndian.Uint64(record[hdrSec:]))
	frac := binary.LittleEndian.Uint64(record[hdrFrac:])
	switch f & stampMask {
	case stampMicro:
		frac *= 1000
	case stampBin:
		frac, _ = bits.Mul64(frac, 1e9)
	case stampNone:
		return time.Time{}
	}
	return time.Unix(sec, int64(frac))
}
