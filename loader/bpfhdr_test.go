package loader

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A recorded read is one that FreeBSD gave: see testdata/bpf-reads.txt.
type recordedRead struct {
	ifname  string
	buf     []byte
	offsets []int
	headers [][]byte
	frames  [][]byte
	names   []string
	passed  []string // of the names, those that a filter let through
}

// recorded reads the file; stamps are its other lines.
func recorded(t testing.TB) (reads []*recordedRead, stamps [][]string) {
	t.Helper()
	text, err := os.ReadFile("testdata/bpf-reads.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		switch f := strings.Fields(line); f[0] {
		case "read":
			reads = append(reads, &recordedRead{ifname: f[1]})
		case "record":
			reads[len(reads)-1].add(number(t, f[1]), fromHex(t, f[2]), fromHex(t, f[3]), f[4])
		case "passed":
			reads[0].passed = f[1:]
		case "stamp":
			stamps = append(stamps, f[1:])
		}
	}
	if len(reads) != 3 || len(reads[0].frames) != 28 || len(stamps) != 9 {
		t.Fatalf("%d reads, %d stamps: has the file changed?", len(reads), len(stamps))
	}
	return reads, stamps
}

func (r *recordedRead) add(offset int, header, frame []byte, name string) {
	padding := make([]byte, offset-len(r.buf))
	r.buf = bytes.Join([][]byte{r.buf, padding, header, frame}, nil)
	r.offsets = append(r.offsets, offset)
	r.headers = append(r.headers, header)
	r.frames = append(r.frames, frame)
	r.names = append(r.names, name)
}

func number(t testing.TB, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(text, "%v", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordsAreWhatFreeBSDWrote(t *testing.T) {
	reads, _ := recorded(t)
	for _, read := range reads {
		r := bpfRecords{buf: read.buf}
		for i, frame := range read.frames {
			if r.off != read.offsets[i] {
				t.Fatalf("%s: record %d is at byte %d, want %d", read.ifname, i, r.off, read.offsets[i])
			}
			got, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			h := read.headers[i]
			want := time.Unix(int64(binary.LittleEndian.Uint64(h)), 1000*int64(binary.LittleEndian.Uint64(h[8:])))
			if !bytes.Equal(got.data, frame) || got.length != len(frame) || !got.time.Equal(want) {
				t.Errorf("%s: record %d: %d of %d bytes %x at %v", read.ifname, i, len(got.data), got.length, got.data, got.time)
			}
		}
		if r.more() {
			t.Errorf("%s: %d bytes are left", read.ifname, len(r.buf)-r.off)
		}
	}
}

func TestEveryFormatOfTimeIsRead(t *testing.T) {
	_, stamps := recorded(t)
	for _, s := range stamps {
		const monotonic = 0x200 // BPF_T_MONOTONIC
		format := number(t, s[0])
		got := stampFormat(format).time(fromHex(t, s[2]))
		now := time.Unix(0, int64(number(t, s[1])))
		switch {
		case stampFormat(format) == stampNone:
			if !got.IsZero() {
				t.Errorf("format %#x: %v", format, got)
			}
		case format&monotonic != 0:
			if got.Unix() != 11 {
				t.Errorf("format %#x: %v after boot, want 11 s", format, got.Unix())
			}
		case now.Sub(got) < 0 || now.Sub(got) > 20*time.Millisecond: // the FAST ones are those of the last tick
			t.Errorf("format %#x: %v, recorded at %v", format, got, now)
		}
	}
}

func TestCorruptRecordsAreErrorsThatEndTheRead(t *testing.T) {
	reads, _ := recorded(t)
	for _, c := range []struct {
		name  string
		spoil func(record []byte) []byte
		want  string
	}{
		{"cut in the header", func(b []byte) []byte { return b[:25] }, "25 bytes are no header"},
		{"cut in the frame", func(b []byte) []byte { return b[:85] }, "60 bytes of a frame where there are 59"},
		{"no header length", func(b []byte) []byte { b[24] = 0; return b }, "a header of 0 bytes"},
		{"header length in the header", func(b []byte) []byte { b[24] = 25; return b }, "a header of 25 bytes"},
		{"header beyond the end", func(b []byte) []byte { b[25] = 0xff; return b }, "a header of 65306 bytes"},
		{"huge caplen", func(b []byte) []byte { copy(b[16:], "\xff\xff\xff\xff\xff\xff\xff\xff"); return b }, "4294967295 bytes of a frame where"},
		{"caplen over datalen", func(b []byte) []byte { b[20] = 59; return b }, "60 bytes of a frame of 59"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := bpfRecords{buf: c.spoil(bytes.Clone(reads[0].buf[:86]))}
			_, err := r.next()
			if err == nil || !strings.Contains(err.Error(), c.want) || r.more() {
				t.Errorf("%v, more: %v; want %q", err, r.more(), c.want)
			}
		})
	}
}

func TestRecordsAreReadWithoutAllocation(t *testing.T) {
	reads, _ := recorded(t)
	n := testing.AllocsPerRun(100, func() {
		for r := (bpfRecords{buf: reads[0].buf, format: stampBin}); r.more(); {
			if _, err := r.next(); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzBPFRecords holds the parser to: no panic, an end, and frames in order
// inside the buffer.
func FuzzBPFRecords(f *testing.F) {
	reads, _ := recorded(f)
	for _, read := range reads {
		f.Add(read.buf, uint32(stampNano))
	}
	f.Add(reads[0].buf[:87], uint32(stampNone))
	f.Fuzz(func(t *testing.T, buf []byte, format uint32) {
		r := bpfRecords{format: stampFormat(format), buf: buf}
		for r.more() {
			before := r.off
			rec, err := r.next()
			if err != nil {
				if r.more() {
					t.Fatal("more after an error")
				}
				return
			}
			end := before + hdrBytes + len(rec.data)
			if r.off < min(end, len(buf)) || end > len(buf) || rec.length < len(rec.data) {
				t.Fatalf("from %d to %d of %d: %d of %d bytes", before, r.off, len(buf), len(rec.data), rec.length)
			}
		}
	})
}
