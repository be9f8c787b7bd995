package loader

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// onLink does something with an interface.
func onLink(t *testing.T, ns *testutil.Namespace, name string, f func(netlink.Link) error) {
	t.Helper()
	err := ns.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return f(link)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func setLink(t *testing.T, ns *testutil.Namespace, name string, up bool) {
	t.Helper()
	if up {
		onLink(t, ns, name, netlink.LinkSetUp)
	} else {
		onLink(t, ns, name, netlink.LinkSetDown)
	}
}

func TestReadEndsWhenTheInterfaceDoesAfterTheLastPacket(t *testing.T) {
	elsewhere := testutil.NewNamespace(t)
	for name, c := range map[string]struct {
		do   func(netlink.Link) error
		want error
	}{
		"down":    {netlink.LinkSetDown, ErrInterfaceDown},
		"removed": {netlink.LinkDel, ErrInterfaceGone},
		"moved": {func(link netlink.Link) error {
			there, err := netns.GetFromPath(elsewhere.Path)
			if err != nil {
				return err
			}
			defer there.Close()
			return netlink.LinkSetNsFd(link, int(there))
		}, ErrInterfaceGone},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			tap := l.open(t, Config{Scope: scopeOf(1)})
			l.send(t, udp(1, 2, "last"))
			arrived(t, tap, 1)
			onLink(t, l.near, "eth0", c.do)
			n := 0
			err := tap.Read(t.Context(), func(*Packet) error { n++; return nil })
			if n != 1 || !errors.Is(err, c.want) || !errors.Is(err, unix.ENETDOWN) || !strings.Contains(err.Error(), "eth0") {
				t.Errorf("%d packets, then %v; want 1, then %v", n, err, c.want)
			}
		})
	}
}

func TestReadThatWaitsEndsWhenTheInterfaceDoes(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	ended := make(chan error)
	go func() { ended <- tap.Read(t.Context(), func(*Packet) error { return nil }) }()
	time.Sleep(20 * time.Millisecond) // most likely it waits by now; else this tests what the one above does
	onLink(t, l.near, "eth0", netlink.LinkDel)
	if err := <-ended; !errors.Is(err, ErrInterfaceGone) {
		t.Error(err)
	}
}

func TestAnInterfaceThatIsDownIsAnErrorOfOpen(t *testing.T) {
	l := newLab(t)
	setLink(t, l.near, "eth0", false)
	if _, err := Open(Config{Interface: "eth0", Namespace: l.near, Scope: scopeOf(1)}); !errors.Is(err, ErrInterfaceDown) {
		t.Error(err)
	}
}

func TestAnUnknownInterfaceIsAnErrorThatNamesTheKnown(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"eth1", "", "a-name-that-is-too-long", "eth0\x00"} {
		_, err := Open(Config{Interface: name, Namespace: l.near})
		var unknown *InterfaceError
		if !errors.As(err, &unknown) || unknown.Name != name || !slices.Contains(unknown.Known, "eth0") || !strings.Contains(err.Error(), "eth0") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestReadHandlesAllThatHadArrivedWhenItsContextEnds(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		tap := l.open(t, Config{Engine: e, Scope: scopeOf(1)})
		for range 20 {
			before, err := tap.Stats()
			if err != nil {
				t.Fatal(err)
			}
			l.send(t, slices.Repeat([][]byte{udp(1, 2, "own")}, 30)...)
			arrived(t, tap, before.Received+30)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			n := 0
			if err := tap.Read(ctx, func(*Packet) error { n++; return nil }); err != nil || n != 30 {
				t.Errorf("%d packets, then %v; want 30, then nil", n, err)
			}
		}
	})
}

func TestReadThatWaitsEndsWithItsContext(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := tap.Read(ctx, func(*Packet) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestReadReturnsWhatHandleReturnsAndTheNextGoesOn(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	var sent [][]byte
	for n := range 50 {
		sent = append(sent, udp(1, 2, strings.Repeat("x", n)))
	}
	l.send(t, sent...)
	var got []seen
	for range sent {
		got = append(got, next(t, tap))
	}
	check(t, got, sent...)
}

func TestBatchesEndWithAnEmptyOneAndFollowReadsThatHaveEnded(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	var sent [][]byte
	for n := range 3 * batchSize / 2 {
		sent = append(sent, udp(1, 2, strings.Repeat("x", n)))
	}
	l.send(t, sent...)
	first := next(t, tap)
	got, largest := []seen{first}, 0
	err := tap.ReadBatches(t.Context(), func(batch Packets) error {
		if batch == nil {
			if len(got) == len(sent) {
				return errEnough
			}
			return nil
		}
		before := len(got)
		for p := new(Packet); batch.Next(p); {
			got = append(got, seen{slices.Clone(p.Data), p.Len, p.Time, p.Outgoing})
		}
		largest = max(largest, len(got)-before)
		return nil
	})
	if err != errEnough || largest < 2 {
		t.Errorf("Read: %v; at most %d at a time", err, largest)
	}
	check(t, got, sent...)
}

func TestPacketsThatAreNotTakenFromABatchAreDoneWith(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1)})
	const sent = 3 * batchSize / 2
	l.send(t, slices.Repeat([][]byte{udp(1, 2, "own")}, sent)...)
	took := 0
	err := tap.ReadBatches(t.Context(), func(batch Packets) error {
		switch {
		case batch != nil && batch.Next(new(Packet)):
			took++
		case tap.taken() == sent:
			return errEnough
		}
		return nil
	})
	if err != errEnough || took == 0 || took >= sent {
		t.Errorf("%v after %d packets of %d", err, took, sent)
	}
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Engine: EBPF, Scope: scopeOf(1)})
	ended := make(chan error)
	go func() { ended <- tap.Read(t.Context(), func(*Packet) error { return nil }) }()
	l.exchange(t, l.open(t, Config{NoScope: true}))
	for range 2 {
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if err := tap.Read(t.Context(), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if err := tap.SetScope(scopeOf(2)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("SetScope after Close: %v", err)
	}
	if s, err := tap.Stats(); err != nil || s.Received != 1 || *s.Seen != 1 {
		t.Errorf("Stats after Close: %+v, %v; want those of the marker", s, err)
	}
}

func TestAClosedTapLeavesNothingOpen(t *testing.T) {
	l := newLab(t)
	openAll := func() {
		for _, e := range bothEngines {
			l.open(t, Config{Engine: e, Scope: scopeOf(1)}).Close()
			l.open(t, Config{Engine: e, NoScope: true}).Close()
		}
		_, err := Open(Config{Interface: "eth0", Namespace: l.near, Engine: EBPF, Filter: program(nlattr)})
		if err == nil {
			t.Error("it opens")
		}
	}
	openAll() // may open what stays, once
	before := openFiles(t)
	openAll()
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, before it were %d", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

func TestTheInterfaceIsPromiscuousAsLongAsTheTapIsOpen(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1), Promiscuous: true})
	l.open(t, Config{Interface: Any, Scope: scopeOf(1), Promiscuous: true})
	for _, want := range []int{1, 0} {
		onLink(t, l.near, "eth0", func(link netlink.Link) error {
			if got := link.Attrs().Promisc; got != want {
				t.Errorf("promiscuous for %d, want %d", got, want)
			}
			return nil
		})
		tap.Close()
	}
}

func TestDropsAreCounted(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Scope: scopeOf(1), RingBytes: 1})
	const sent = 1000
	l.send(t, slices.Repeat([][]byte{udp(1, 2, strings.Repeat("x", 1000))}, sent)...)
	arrived(t, tap, sent)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := uint64(0)
	if err := tap.Read(ctx, func(*Packet) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	if s, err := tap.Stats(); err != nil || s.Received != sent || s.Dropped == 0 || s.Received-s.Dropped != n {
		t.Errorf("read %d, %+v, %v; want %d received, and those not read dropped", n, s, err, sent)
	}
}

func TestReadingAPacketAllocatesNothing(t *testing.T) {
	l := newLab(t)
	for _, cfg := range []Config{
		{Scope: scopeOf(1)},
		{Scope: scopeOf(1), Interface: Any},
		{Scope: scopeOf(1), Interface: Any, Filter: program(byteIs(12, 2, 100))}, // runs here
	} {
		cfg.RingBytes = 2 << 20
		tap := l.open(t, cfg)
		const sent = 1000
		l.send(t, slices.Repeat([][]byte{udp(1, 2, "own")}, sent)...)
		arrived(t, tap, sent)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n := 0
		handle := func(*Packet) error { n++; return nil }
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := tap.Read(ctx, handle)
		runtime.ReadMemStats(&after)
		if got := after.Mallocs - before.Mallocs; err != nil || n != sent || got > sent/10 {
			t.Errorf("%d packets, %v, %d allocations", n, err, got)
		}
		tap.Close()
	}
}

func TestARingIsDividedIntoBlocks(t *testing.T) {
	for _, c := range []struct {
		bytes     int
		immediate bool
		block, n  uint32
	}{
		{0, false, 256 << 10, 8},
		{64 << 20, false, 256 << 10, 256},
		{512 << 10, false, 128 << 10, 4},
		{1, false, 64 << 10, 2},
		{0, true, 128 << 10, 32},
	} {
		r, req := geometry(c.bytes, c.immediate)
		if req.Block_size != c.block || req.Block_nr != c.n || r.block != int(c.block) || req.Frame_nr != req.Block_nr*(req.Block_size/req.Frame_size) {
			t.Errorf("%d, %t: got %+v, want %d blocks of %d", c.bytes, c.immediate, req, c.n, c.block)
		}
	}
}
