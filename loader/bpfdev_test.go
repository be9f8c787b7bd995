package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

func node(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, n}), 7) }

// frame is from one host to another, both named by a number.
func frame(src, dst byte, payload string) []byte {
	return testutil.UDP4(node(src), node(dst), []byte(payload))
}

func scopeOn(ns ...byte) bpf.Scope {
	var s bpf.Scope
	for _, n := range ns {
		s.Addrs = append(s.Addrs, netip.PrefixFrom(node(n).Addr(), 32))
	}
	return s
}

// openFake opens a capture on the device's interface.
func openFake(t *testing.T, f *fakeBPF, cfg Config) *bpfConn {
	t.Helper()
	c, err := tryFake(f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close() })
	return c
}

func tryFake(f *fakeBPF, cfg Config) (*bpfConn, error) {
	if cfg.Interface == "" {
		cfg.Interface = "fake0"
	}
	c := &bpfConn{dev: f}
	_, err := c.setUp(cfg)
	return c, err
}

// rest reads what is there: with a context that has ended, Read does not wait.
func rest(t *testing.T, c *bpfConn) (frames [][]byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := c.read(ctx, func(p *Packet) error {
		frames = append(frames, bytes.Clone(p.Data))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return frames
}

func expect(t *testing.T, got [][]byte, want ...[]byte) {
	t.Helper()
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %d frames %x, want %d %x", len(got), got, len(want), want)
	}
}

func TestBPFRejectsEverythingUntilTheScopeIsThere(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	openFake(t, f, Config{Scope: scopeOn(1), Direction: In, Immediate: true, Promiscuous: true})
	want := []string{
		"BIOCSETF reject",
		"BIOCSETWF reject",
		"BIOCSBLEN 1048576",
		"BIOCSTSTAMP 1",
		"BIOCSDIRECTION 0",
		"BIOCIMMEDIATE 1",
		"BIOCSETIF fake0",
		"BIOCGDLT 0",
		"BIOCPROMISC 0",
		"BIOCSETFNR program",
		"BIOCLOCK 0",
	}
	if !slices.Equal(f.asked, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(f.asked, "\n"), strings.Join(want, "\n"))
	}
	if verdicts(f.writeFilter) != "reject" {
		t.Errorf("the write filter is\n%s", f.writeFilter.Text())
	}
}

func TestNoFrameOutOfScopeIsBufferedWhenTheDeviceIsSetUp(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	f.after = func() {
		f.deliver(frame(8, 9, "foreign"))
		f.deliver(frame(1, 9, "own"))
	}
	c := openFake(t, f, Config{Scope: scopeOn(1), Promiscuous: true})
	f.after()
	got := rest(t, c)
	if len(got) == 0 {
		t.Error("no frame in scope either")
	}
	for _, b := range got {
		if !bytes.Equal(b, frame(1, 9, "own")) {
			t.Errorf("a frame out of scope: %x", b)
		}
	}
}

func TestWhenAnIoctlFailsNothingPasses(t *testing.T) {
	for _, r := range []request{setBufferLength, setFilter, setFilterNoFlush, setWriteFilter, setStampFormat,
		setDirection, setImmediate, setPromiscuous, getLinkType, lock, "BIOCSETIF"} {
		f := newFakeBPF(bpf.Ethernet)
		f.refuse = r
		_, err := tryFake(f, Config{Scope: scopeOn(1), Immediate: true, Promiscuous: true})
		if err == nil || !strings.Contains(err.Error(), string(r)) {
			t.Errorf("%s refused: %v", r, err)
		}
		f.deliver(frame(8, 9, "foreign"))
		if len(f.store) > 0 {
			t.Errorf("%s refused: a frame passed", r)
		}
	}
}

func TestOnlyAScopeThatIsFixedIsLocked(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1, 2)})
	f.deliver(frame(1, 9, "before"))
	if err := c.setScope(scopeOn(1)); !errors.Is(err, errLocked) {
		t.Errorf("SetScope when locked: %v", err)
	}
	err := c.read(t.Context(), func(p *Packet) error { t.Errorf("%x is shown", p.Data); return nil })
	if !errors.Is(err, errBroken) {
		t.Errorf("Read: %v", err)
	}

	f = newFakeBPF(bpf.Ethernet)
	openFake(t, f, Config{Scope: scopeOn(1), ScopeChanges: true})
	if f.locked {
		t.Error("locked, but the scope changes")
	}
}

func TestBPFChangesScopeWithoutLosingWhatWaits(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1), ScopeChanges: true})
	f.deliver(frame(1, 9, "waits"))
	if err := c.setScope(scopeOn(2)); err != nil {
		t.Fatal(err)
	}
	f.deliver(frame(1, 9, "too late"))
	f.deliver(frame(2, 9, "new"))
	expect(t, rest(t, c), frame(1, 9, "waits"), frame(2, 9, "new"))
	if s, err := c.stats(); err != nil || *s.Seen != 3 || s.Received != 2 || s.Dropped != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestAScopeThatDoesNotFitBPFShutsTheCaptureUntilOneDoes(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1), ScopeChanges: true})
	var large bpf.Scope
	for i := range 1000 {
		large.Addrs = append(large.Addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 7), byte(i << 1)}), 32))
	}
	var many *bpf.TooManyAddressesError
	if err := c.setScope(large); !errors.As(err, &many) || many.Dialect != bpf.FreeBSD {
		t.Errorf("%v", err)
	}
	f.deliver(frame(1, 9, "shut"))
	if err := c.setScope(scopeOn(1)); err != nil {
		t.Fatal(err)
	}
	f.deliver(frame(1, 9, "open"))
	expect(t, rest(t, c), frame(1, 9, "open"))

	f.refuse = setFilterNoFlush
	f.deliver(frame(1, 9, "waits"))
	if err := c.setScope(scopeOn(2)); err == nil || !strings.Contains(err.Error(), "still in force") {
		t.Errorf("%v", err)
	}
	if err := c.read(t.Context(), nil); !errors.Is(err, errBroken) {
		t.Errorf("Read: %v", err)
	}
}

func TestTheUsersProgramRunsInsideTheScopeOfBPF(t *testing.T) {
	broadcast := bpf.Program{{Op: 0x30, K: 0}, {Op: 0x15, Jf: 1, K: 0xff}, {Op: 0x06, K: 40}, {Op: 0x06}} // ldb [0]; jeq #0xff; ret
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1), Filter: func(bpf.LinkType) (bpf.Program, error) { return broadcast, nil }})
	all := testutil.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	own := testutil.To(frame(1, 9, "broadcast"), all)
	f.deliver(frame(1, 9, "unicast"))
	f.deliver(testutil.Tagged(own, 0x8100, 10)) // the tag is in the frame here
	f.deliver(own)
	expect(t, rest(t, c), own[:40])
}

func TestFramesOfLoopbackHaveAnAddressFamily(t *testing.T) {
	reads, _ := recorded(t)
	udp, ipv6 := reads[1].frames[0], reads[2].frames[0] // the second is IPv4 by its bytes, IPv6 by its family
	f := newFakeBPF(bpf.Null)
	c := openFake(t, f, Config{Scope: bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, Promiscuous: true})
	f.deliver(udp)
	f.deliver(ipv6)
	expect(t, rest(t, c), udp)
	if slices.ContainsFunc(f.asked, func(s string) bool { return strings.HasPrefix(s, "BIOCPROMISC") }) {
		t.Error("promiscuous, though there are no MACs")
	}
}

func TestTheClassicScopeLetsThroughWhatItDidOnFreeBSD(t *testing.T) {
	reads, _ := recorded(t)
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: bpf.Scope{Policy: bpf.Classic, Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.1.1/32")}}})
	var want [][]byte
	for i, b := range reads[0].frames {
		f.deliver(b)
		if slices.Contains(reads[0].passed, reads[0].names[i]) {
			want = append(want, b)
		}
	}
	if len(want) != 12 {
		t.Fatalf("%d frames passed there, not 12: has the file changed?", len(want))
	}
	expect(t, rest(t, c), want...)
}

func TestALinkTypeWithoutScopesIsAnError(t *testing.T) {
	const radiotap = 127
	f := newFakeBPF(radiotap)
	if _, err := tryFake(f, Config{Scope: scopeOn(1)}); err == nil || !strings.Contains(err.Error(), "DLT 127") {
		t.Errorf("%v", err)
	}
	if verdicts(f.filter) != "reject" {
		t.Error("something may pass")
	}
	openFake(t, newFakeBPF(radiotap), Config{NoScope: true})
}

func TestASnaplenAloneActivatesADeviceThatWaitsForAFilter(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	f.writer = true
	c := openFake(t, f, Config{NoScope: true, Snaplen: 20})
	f.deliver(frame(8, 9, "anybody's"))
	expect(t, rest(t, c), frame(8, 9, "anybody's")[:20])
	if err := c.setScope(scopeOn(1)); !errors.Is(err, errUnscoped) {
		t.Errorf("SetScope: %v", err)
	}
}

func TestAnInterfaceThatBPFDoesNotKnowIsAnError(t *testing.T) {
	var unknown *InterfaceError
	if _, err := tryFake(newFakeBPF(bpf.Ethernet), Config{Interface: "fake1", Scope: scopeOn(1)}); !errors.As(err, &unknown) || unknown.Name != "fake1" {
		t.Errorf("%v", err)
	}
}

func TestWhatBPFDoesNotHaveIsAnErrorThatSaysSo(t *testing.T) {
	for want, cfg := range map[string]Config{
		"in it, with jexec(8)":           {Namespace: callersOwn{}},
		"bpf(4) captures on one":         {Interface: Any},
		"classic programs, which is eng": {Engine: EBPF},
	} {
		if err := bpfHas(cfg); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := bpfHas(Config{Engine: "xbpf"}); err == nil || !strings.Contains(err.Error(), `"xbpf": known are auto, cbpf`) {
		t.Errorf("%v", err)
	}
	if err := bpfHas(Config{Engine: CBPF, Interface: "em0"}); err != nil {
		t.Error(err)
	}
}

type callersOwn struct{}

func (callersOwn) Do(f func() error) error { return f() }

func TestReadOfBPFEndsWhenTheInterfaceIsGoneAfterTheLastPacket(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	f.deliver(frame(1, 9, "last"))
	f.destroy()
	var got [][]byte
	err := c.read(t.Context(), func(p *Packet) error { got = append(got, bytes.Clone(p.Data)); return nil })
	if !errors.Is(err, ErrInterfaceGone) || !strings.Contains(err.Error(), "fake0") {
		t.Errorf("Read: %v", err)
	}
	expect(t, got, frame(1, 9, "last"))
}

func TestReadOfBPFHandlesBothBuffersWhenItsContextHasEnded(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	f.maxBytes = 256
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	var want [][]byte
	for i := range 6 { // two each fill a buffer
		b := frame(1, 9, fmt.Sprintf("%060d", i))
		f.deliver(b)
		want = append(want, b)
	}
	expect(t, rest(t, c), want[:4]...)
	if s, err := c.stats(); err != nil || s.Received != 6 || s.Dropped != 2 || *s.Seen != 6 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestReadOfBPFGoesOnWhereHandleFailed(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	f.deliver(frame(1, 9, "one"))
	f.deliver(frame(1, 9, "two"))
	enough := errors.New("enough")
	if err := c.read(t.Context(), func(*Packet) error { return enough }); err != enough {
		t.Errorf("Read: %v", err)
	}
	expect(t, rest(t, c), frame(1, 9, "two"))
}

func TestBatchesOfBPFEndWithAnEmptyOne(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	f.deliver(frame(1, 9, "one"))
	f.deliver(frame(1, 9, "two"))
	var got [][]byte
	idle := errors.New("idle")
	err := c.readBatches(t.Context(), func(batch Packets) error {
		if batch == nil {
			return idle
		}
		for p := new(Packet); batch.Next(p); {
			got = append(got, bytes.Clone(p.Data))
		}
		return nil
	})
	if err != idle {
		t.Errorf("Read: %v", err)
	}
	expect(t, got, frame(1, 9, "one"), frame(1, 9, "two"))
}

func TestACorruptBufferOfBPFIsAnErrorOnce(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	f.store = []byte("not a record of bpf(4) at all")
	if err := c.read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "fake0: corrupt record at byte 0") {
		t.Errorf("Read: %v", err)
	}
	expect(t, rest(t, c))
}

func TestCloseEndsAReadOfBPFThatWaits(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	f.deliver(frame(1, 9, "first"))
	reading, ended := make(chan struct{}), make(chan error)
	go func() {
		ended <- c.read(context.Background(), func(*Packet) error { close(reading); return nil })
	}()
	<-reading
	if err := c.close(); err != nil || !f.closed {
		t.Errorf("Close: %v, closed: %v", err, f.closed)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if s, err := c.stats(); err != nil || s.Received != 1 {
		t.Errorf("Stats after Close: %+v, %v", s, err)
	}
	if err := c.setScope(scopeOn(1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("SetScope after Close: %v", err)
	}
	if err := c.close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestCountersOf32BitsMayWrap(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	for _, n := range []uint32{0xfffffff0, 0x10} {
		f.received, f.dropped = n, n-8
		if _, err := c.stats(); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := c.stats(); err != nil || *s.Seen != 1<<32+0x10 || s.Dropped != 1<<32+8 {
		t.Errorf("%d, %d, %v", *s.Seen, s.Dropped, err)
	}
}

func TestReadingAPacketOfBPFAllocatesNothing(t *testing.T) {
	f := newFakeBPF(bpf.Ethernet)
	c := openFake(t, f, Config{Scope: scopeOn(1)})
	reads, _ := recorded(t)
	n := testing.AllocsPerRun(100, func() {
		c.records.buf, c.records.off = reads[0].buf, 0
		if err := c.handleRead(func(*Packet) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d packets", n, len(reads[0].frames))
	}
}
