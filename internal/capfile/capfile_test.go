package capfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"jailtap/internal/captured"
	"jailtap/internal/testutil"
)

var epoch = time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)

// samplePackets are frames of all lengths modulo 4, the last one cut.
func samplePackets() (packets []Packet) {
	iface := &Interface{LinkType: 1, SnapLen: 262144}
	for i := range 5 {
		data := bytes.Repeat([]byte{byte(i + 1)}, 60+i)
		packets = append(packets, Packet{epoch.Add(time.Duration(i) * time.Microsecond), data, len(data), iface})
	}
	packets[4].Len = 1500
	return packets
}

func write(t testing.TB, out io.Writer, format Format, iface Interface, packets []Packet) *Writer {
	t.Helper()
	w, err := NewWriter(out, "test", format, Section{OS: "Linux 6.18", Application: "jailtap 1"}, iface)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.Write(0, captured.Packet{Time: p.Time, Data: p.Data, Len: p.Len}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteStats(0, Stats{Start: epoch, End: epoch.Add(time.Minute), Received: 7, Dropped: 2}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return w
}

func readAll(t testing.TB, in io.Reader) (packets []Packet, err error) {
	t.Helper()
	r, err := NewReader(in)
	if err != nil {
		return nil, err
	}
	for {
		p, err := r.Next()
		if err != nil {
			return packets, err
		}
		p.Data = bytes.Clone(p.Data)
		packets = append(packets, p)
	}
}

func mustBeSame(t testing.TB, got, want []Packet) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if !g.Time.Equal(w.Time) || !bytes.Equal(g.Data, w.Data) || g.Len != w.Len || g.Interface.LinkType != w.Interface.LinkType {
			t.Errorf("packet %d: %v %d %x, want %v %d %x", i, g.Time, g.Len, g.Data, w.Time, w.Len, w.Data)
		}
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	for _, format := range []Format{Pcap, PcapNG} {
		var file bytes.Buffer
		iface := Interface{LinkType: 276, SnapLen: 96, Name: "eth0", Filter: "tcp port 80", Description: "of 10.0.0.1"}
		packets := samplePackets()
		for i := range packets {
			packets[i].Interface = &iface
		}
		w := write(t, &file, format, iface, packets)
		if w.Size() != int64(file.Len()) {
			t.Errorf("%v: Size is %d, the file has %d bytes", format, w.Size(), file.Len())
		}
		got, err := readAll(t, &file)
		if err != io.EOF {
			t.Fatalf("%v: %v", format, err)
		}
		mustBeSame(t, got, packets)
		if format == PcapNG && *got[0].Interface != iface {
			t.Errorf("interface %+v, want %+v", *got[0].Interface, iface)
		}
	}
}

func TestTcpdumpReadsWhatIsWritten(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		testutil.Skip(t, "tcpdump is not there")
	}
	for _, format := range []Format{Pcap, PcapNG} {
		name := filepath.Join(t.TempDir(), "f")
		file, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		write(t, file, format, Interface{LinkType: 1, SnapLen: 262144}, samplePackets())
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tcpdump, "--nano", "-tt", "-nr", "-")
		cmd.Stdin, err = os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(out), "\n17726") + 1; n != 5 {
			t.Errorf("%v: tcpdump printed %d packets, want 5:\n%s", format, n, out)
		}
		if !strings.HasPrefix(string(out), "1772600767.123456789 ") {
			t.Errorf("%v: wrong time:\n%s", format, out)
		}
	}
}

func TestGopacketReadsWhatIsWritten(t *testing.T) {
	var file bytes.Buffer
	iface := Interface{LinkType: 1, SnapLen: 262144, Name: "eth0", Filter: "udp", Description: "scope"}
	write(t, &file, PcapNG, iface, samplePackets())
	r, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range samplePackets() {
		data, info, err := r.ReadPacketData()
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if !bytes.Equal(data, want.Data) || !info.Timestamp.Equal(want.Time) || info.Length != want.Len {
			t.Errorf("packet %d: %v %x, want %v %x", i, info, data, want.Time, want.Data)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if s := r.SectionInfo(); s.OS != "Linux 6.18" || s.Application != "jailtap 1" {
		t.Errorf("section %+v", s)
	}
	got, err := r.Interface(0)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != iface.Name || got.Filter != iface.Filter || got.Description != iface.Description {
		t.Errorf("interface %+v", got)
	}
	if s := got.Statistics; s.PacketsReceived != 7 || s.PacketsDropped != 2 || !s.EndTime.Equal(epoch.Add(time.Minute)) {
		t.Errorf("statistics %+v", s)
	}
}

// pcapFile is a pcap file with one 4-byte packet, of any flavour.
func pcapFile(order binary.AppendByteOrder, magic uint32, linkType uint32) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(b, 4)
	for _, w := range []uint32{0, 0, 65535, linkType, 1000, 123456, 4, 40} {
		b = order.AppendUint32(b, w)
	}
	return append(b, 1, 2, 3, 4)
}

func TestEveryFlavourOfPcapIsRead(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for magic, nanos := range map[uint32]int64{magicMicro: 123456000, magicNano: 123456} {
			got, err := readAll(t, bytes.NewReader(pcapFile(order, magic, 0xf4000001))) // FCS of 4 bytes
			if err != io.EOF {
				t.Fatal(err)
			}
			want := Packet{time.Unix(1000, nanos), []byte{1, 2, 3, 4}, 40, &Interface{LinkType: 1}}
			mustBeSame(t, got, []Packet{want})
		}
	}
}

// ngBlock is a pcapng block made of 16-bit and 32-bit numbers and bytes.
func ngBlock(order binary.AppendByteOrder, kind uint32, parts ...any) []byte {
	var body []byte
	for _, part := range parts {
		switch p := part.(type) {
		case uint16:
			body = order.AppendUint16(body, p)
		case int:
			body = order.AppendUint32(body, uint32(p))
		case string:
			body = append(body, p...)
		}
	}
	total := uint32(len(body) + 12)
	b := order.AppendUint32(order.AppendUint32(nil, kind), total)
	return order.AppendUint32(append(b, body...), total)
}

func ngSection(order binary.AppendByteOrder) []byte {
	return ngBlock(order, blockSection, byteOrderMagic, uint16(1), uint16(0), -1, -1)
}

func TestEveryKindOfPcapNGBlockIsRead(t *testing.T) {
	var file []byte
	var want []Packet
	// Two sections, of which each begins to number its interfaces anew.
	for _, order := range []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian} {
		file = append(file, ngSection(order)...)
		file = append(file, ngBlock(order, blockInterface, uint16(1), uint16(0), 4)...)
		file = append(file, ngBlock(order, blockInterface, uint16(276), uint16(0), 0,
			uint16(optInterfaceTsresol), uint16(1), "\x8a\x00\x00\x00", // 2^-10 s
			uint16(optInterfaceTsoffset), uint16(8), "\x00\x00\x00\x00\x00\x00\x00\x00")...)
		file = append(file, ngBlock(order, 0x0bad, 1, 2, 3)...)
		file = append(file, ngBlock(order, blockEnhanced, 0, 0, 5000001, 3, 60, "abc\x00")...)
		file = append(file, ngBlock(order, blockEnhanced, 1, 0, 2048+512, 4, 4, "abcd", uint16(2), uint16(4), 1, 0)...)
		file = append(file, ngBlock(order, blockSimple, 9, "abcd")...)
		file = append(file, ngBlock(order, blockPacket, uint16(1), uint16(7), 0, 1024, 2, 2, "ab\x00\x00")...)
		ether, cooked := &Interface{LinkType: 1}, &Interface{LinkType: 276}
		want = append(want,
			Packet{time.Unix(5, 1000), []byte("abc"), 60, ether},
			Packet{time.Unix(2, 5e8), []byte("abcd"), 4, cooked},
			Packet{time.Unix(0, 0), []byte("abcd"), 9, ether},
			Packet{time.Unix(1, 0), []byte("ab"), 2, cooked})
	}
	got, err := readAll(t, bytes.NewReader(file))
	if err != io.EOF {
		t.Fatal(err)
	}
	mustBeSame(t, got, want)
}

func TestDamagedFilesAreRefusedWithTheirOffset(t *testing.T) {
	le := binary.LittleEndian
	pcap := pcapFile(le, magicMicro, 1)
	section := ngSection(le)
	bigPacket := bytes.Clone(pcap)
	le.PutUint32(bigPacket[32:], 1<<31)
	badEnd := bytes.Clone(section)
	badEnd[len(badEnd)-4]++
	join := func(blocks ...[]byte) []byte { return bytes.Join(blocks, nil) }
	for name, c := range map[string]struct {
		file   []byte
		offset int64
		reason string
		cut    bool
	}{
		"nothing":        {nil, 0, "the file is empty", false},
		"two bytes":      {[]byte{1, 2}, 0, "too short", false},
		"text":           {[]byte("hello world"), 0, "68 65 6c 6c is the start of neither", false},
		"cut head":       {pcap[:20], 0, "4 bytes before the end", true},
		"cut record":     {pcap[:30], 24, "10 bytes before the end", true},
		"cut packet":     {pcap[:42], 24, "2 bytes before the end", true},
		"huge packet":    {bigPacket, 24, "packet of 2147483648 bytes", false},
		"cut block":      {join(section, ngBlock(le, 7, 1)[:14]), 28, "2 bytes before the end", true},
		"two lengths":    {badEnd, 0, "block of 28 bytes ends with the length 29", false},
		"odd length":     {join(section, []byte("\x07\x00\x00\x00\x0d\x00\x00\x00\x00\x00\x00\x00")), 28, "block of 13 bytes", false},
		"no mark":        {[]byte("\x0a\x0d\x0d\x0a\x1c\x00\x00\x00abcd"), 0, "no byte-order mark", false},
		"no interface":   {join(section, ngBlock(le, blockEnhanced, 3, 0, 0, 0, 0)), 28, "packet of interface 3; the section has described 0", false},
		"short packet":   {join(section, ngBlock(le, blockEnhanced, 3)), 28, "packet block of 4 bytes", false},
		"packet outside": {join(section, ngBlock(le, blockInterface, 1, 0), ngBlock(le, blockEnhanced, 0, 0, 0, 5, 5, "abcd")), 48, "packet of 5 bytes in a block with room for 4", false},
		"long option":    {join(section, ngBlock(le, blockInterface, 1, 0, uint16(2), uint16(5), "abcd")), 28, "option 2 of 5 bytes is longer", false},
		"resolution":     {join(section, ngBlock(le, blockInterface, 1, 0, uint16(9), uint16(1), "\x14\x00\x00\x00")), 28, "resolution 0x14", false},
	} {
		_, err := readAll(t, bytes.NewReader(c.file))
		var bad *FormatError
		if !errors.As(err, &bad) {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		if bad.Offset != c.offset || !strings.Contains(bad.Reason, c.reason) || errors.Is(err, io.ErrUnexpectedEOF) != c.cut {
			t.Errorf("%s: %v, want %q at %d", name, err, c.reason, c.offset)
		}
	}
}

// A fullDisk takes so many bytes.
type fullDisk struct {
	*os.File
	room int
}

func (d *fullDisk) Write(b []byte) (int, error) {
	n, err := d.File.Write(b[:min(len(b), d.room)])
	d.room -= n
	if err == nil && n < len(b) {
		err = &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
	}
	return n, err
}

func TestAFullDiskLeavesWholePackets(t *testing.T) {
	for _, format := range []Format{Pcap, PcapNG} {
		file, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		disk := &fullDisk{file, bufferSize + 1000}
		w, err := NewWriter(disk, "full.pcap", format, Section{}, Interface{LinkType: 1})
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 1501)
		for err == nil {
			err = w.Write(0, captured.Packet{Time: epoch, Data: data, Len: len(data)})
		}
		if !errors.Is(err, syscall.ENOSPC) || err.Error() != "writing full.pcap: no space left on device" {
			t.Errorf("error %q", err)
		}
		if again := w.Flush(); again != err {
			t.Errorf("after the error Flush says %v", again)
		}
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		packets, err := readAll(t, file)
		if err != io.EOF || len(packets) < bufferSize/(1501+40) {
			t.Errorf("%v: the file has %d packets and ends with %v", format, len(packets), err)
		}
	}
}

// TestManyPacketsAtOnceAreWhatTheyAreOneByOne: also when they fill the buffer, and
// one is longer than it.
func TestManyPacketsAtOnceAreWhatTheyAreOneByOne(t *testing.T) {
	var packets []captured.Packet
	for i := range 2000 {
		data := bytes.Repeat([]byte{byte(i)}, 60+i%9)
		packets = append(packets, captured.Packet{Time: epoch.Add(time.Duration(i)), Data: data, Len: len(data) + i%2})
	}
	packets[1000].Data, packets[1000].Len = make([]byte, bufferSize+5), bufferSize+5
	for _, format := range []Format{Pcap, PcapNG} {
		files := make([]bytes.Buffer, 2)
		for i := range files {
			w, err := NewWriter(&files[i], "test", format, Section{}, Interface{LinkType: 1})
			if err != nil {
				t.Fatal(err)
			}
			list := captured.List(packets)
			if i == 0 {
				for _, p := range packets {
					err = errors.Join(err, w.Write(0, p))
				}
			} else if n, err2 := w.WriteAll(0, &list); n != len(packets) || err2 != nil {
				t.Errorf("%v: %d packets, then %v", format, n, err2)
			}
			if size := w.Size(); errors.Join(err, w.Flush()) != nil || size != int64(files[i].Len()) {
				t.Fatalf("%v: %v; Size was %d, the file has %d bytes", format, err, size, files[i].Len())
			}
		}
		if !bytes.Equal(files[0].Bytes(), files[1].Bytes()) {
			t.Errorf("%v: the files differ", format)
		}
		got, err := readAll(t, &files[1])
		if err != io.EOF || len(got) != len(packets) {
			t.Fatalf("%v: %d packets, then %v", format, len(got), err)
		}
		for i, p := range packets {
			if !got[i].Time.Equal(p.Time) || !bytes.Equal(got[i].Data, p.Data) || got[i].Len != p.Len {
				t.Errorf("%v: packet %d is another", format, i)
			}
		}
	}
}

// TestPaddingHasNothingOfEarlierPackets: the buffer is used again and again.
func TestPaddingHasNothingOfEarlierPackets(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, "test", PcapNG, Section{}, Interface{LinkType: 1})
	if err != nil {
		t.Fatal(err)
	}
	secret, short := bytes.Repeat([]byte{0xee}, 200), []byte{1, 2, 3, 4, 5}
	for _, data := range [][]byte{secret, short} {
		file.Reset()
		if err := errors.Join(w.Write(0, captured.Packet{Time: epoch, Data: data, Len: len(data)}), w.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if padding := file.Bytes()[enhancedHead+len(short):][:3]; !bytes.Equal(padding, []byte{0, 0, 0}) {
		t.Errorf("padding %x", padding)
	}
}

func TestAPcapFileHasOneInterface(t *testing.T) {
	w, err := NewWriter(io.Discard, "x.pcap", Pcap, Section{}, Interface{LinkType: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddInterface(Interface{LinkType: 1}); err == nil {
		t.Error("a second interface was taken")
	}
}

func TestAPacketIsWrittenAndReadWithoutAllocation(t *testing.T) {
	for _, format := range []Format{Pcap, PcapNG} {
		w, err := NewWriter(io.Discard, "x", format, Section{}, Interface{LinkType: 1})
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 1500)
		if n := testing.AllocsPerRun(1000, func() { _ = w.Write(0, captured.Packet{Time: epoch, Data: data, Len: 1500}) }); n != 0 {
			t.Errorf("%v: %v allocations a packet written", format, n)
		}

		var file bytes.Buffer
		packets := make([]Packet, 1100)
		for i := range packets {
			packets[i] = samplePackets()[i%5]
		}
		write(t, &file, format, Interface{LinkType: 1}, packets)
		r, err := NewReader(&file)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(1000, func() { _, _ = r.Next() }); n != 0 {
			t.Errorf("%v: %v allocations a packet read", format, n)
		}
	}
}

// FuzzReader: whatever the bytes, the reader ends with an error that is io.EOF
// or says where, and what it read can be written and read again.
func FuzzReader(f *testing.F) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f.Add(pcapFile(order, magicNano, 1))
		f.Add(bytes.Join([][]byte{ngSection(order), ngBlock(order, blockInterface, uint16(1), uint16(0), 4),
			ngBlock(order, blockEnhanced, 0, 0, 5000001, 3, 60, "abc\x00"), ngBlock(order, blockSimple, 9, "abcd")}, nil))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		packets, err := readAll(t, bytes.NewReader(file))
		var bad *FormatError
		if err != io.EOF && !errors.As(err, &bad) {
			t.Fatalf("error %v", err)
		}
		if bad != nil && (bad.Offset < 0 || bad.Offset > int64(len(file))) {
			t.Fatalf("offset %d in a file of %d bytes", bad.Offset, len(file))
		}
		var again bytes.Buffer
		write(t, &again, PcapNG, Interface{LinkType: 1}, packets)
		got, err := readAll(t, &again)
		if err != io.EOF || len(got) != len(packets) {
			t.Fatalf("%d packets became %d: %v", len(packets), len(got), err)
		}
	})
}
