package loader

import (
	"bytes"
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

// opens is how often each engine opens a capture: JAILTAP_OPENS, or 1000.
func opens(t *testing.T) int {
	t.Helper()
	text := os.Getenv("JAILTAP_OPENS")
	switch {
	case text != "":
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("JAILTAP_OPENS=%q: want a number", text)
		}
		return n
	case testing.Short():
		return 50
	}
	return 1000
}

// A capture that took frames before its filter was there would show some of
// these: there is not a millisecond without.
func TestNoForeignFrameArrivesWhileCapturesAreOpenedAndClosed(t *testing.T) {
	testutil.NeedRoot(t)
	n := opens(t)
	for _, way := range []Config{{Engine: CBPF}, {Engine: EBPF}, {Hub: HubAlways}} {
		t.Run(string(way.Engine)+string(way.Hub), func(t *testing.T) {
			t.Parallel() // an open mostly waits for the kernel
			l := newLab(t)
			l.flood(t, udp(2, 3, "foreign"))
			others := l.open(t, Config{NoScope: true})
			own := 0
			for range n {
				way.Scope, way.RingBytes, way.ScopeChanges = scopeOf(1), 1, true
				tap := l.open(t, way)
				if way.Hub == HubAlways && tap.shared == nil {
					t.Fatal(tap.Reason())
				}
				l.send(t, udp(1, 2, "own"))
				arrived(t, tap, 1)
				own += onlyOwn(t, tap)
				tap.Close()
				if t.Failed() {
					return
				}
			}
			if own < n {
				t.Errorf("of %d own frames %d were seen", n, own)
			}
			if s, err := others.Stats(); err != nil || s.Received < uint64(10*n) {
				t.Errorf("%d captures among %d frames, %v: too few for a flood", n, s.Received, err)
			}
		})
	}
}

// Making the ring throws away what had come in before, so that the test above
// would not see it.
func TestUntilItsFilterIsThereASocketGetsNoPackets(t *testing.T) {
	l := newLab(t)
	asked := false
	l.open(t, Config{Scope: scopeOf(1), Filter: func(bpf.LinkType) (bpf.Program, error) {
		asked = true
		if got := l.sockets(t); got != "0000 0" {
			t.Errorf("before: protocol and interface are %s", got)
		}
		return nil, nil
	}})
	if got := l.sockets(t); !asked || got != "0003 "+l.index(t) {
		t.Errorf("after: protocol and interface are %s", got)
	}
}

// sockets says of the packet sockets in the near namespace which protocol and
// interface they are bound to.
func (l lab) sockets(t *testing.T) string {
	t.Helper()
	var list []byte
	err := l.near.Do(func() (err error) {
		list, err = os.ReadFile("/proc/thread-self/net/packet")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); f[0] != "sk" { // the heading
			all = append(all, f[3]+" "+f[4])
		}
	}
	return strings.Join(all, ", ")
}

func (l lab) index(t *testing.T) (index string) {
	t.Helper()
	onLink(t, l.near, "eth0", func(link netlink.Link) error {
		index = strconv.Itoa(link.Attrs().Index)
		return nil
	})
	return index
}

// A scope that moves from one host to another shows nothing of the first from
// then on, nor of a third at any time.
func TestNoForeignFrameArrivesWhileTheScopeChanges(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		l := newLab(t)
		tap := l.open(t, Config{Engine: e, Scope: scopeOf(4), ScopeChanges: true})
		l.flood(t, udp(2, 3, "foreign"))
		for n := range 200 {
			if err := tap.SetScope(scopeOf(4 + byte(n%2))); err != nil {
				t.Fatal(err)
			}
			if n%50 == 0 { // rests: the kernel frees programs late
				time.Sleep(30 * time.Millisecond)
			}
		}
		onlyOwn(t, tap)
	})
}

// flood sends frames from the far end, some hundred each millisecond, until
// the test ends.
func (l lab) flood(t *testing.T, frame []byte) {
	t.Helper()
	var ended sync.WaitGroup
	stop := make(chan struct{})
	ended.Go(func() {
		err := l.far.Do(func() error { return flood(frame, stop) })
		if err != nil {
			t.Errorf("flood: %v", err)
		}
	})
	t.Cleanup(func() { close(stop); ended.Wait() })
}

func flood(frame []byte, stop <-chan struct{}) error {
	link, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Ifindex: link.Index}
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(200 * time.Microsecond):
		}
		for range 64 {
			if err := unix.Sendto(fd, frame, 0, to); err != nil && err != unix.ENOBUFS {
				return err
			}
		}
	}
}

// onlyOwn reads all that has come in, in the ring and past it, and fails the
// test if there is a foreign frame. It returns how many frames there were.
func onlyOwn(t *testing.T, tap *Tap) (n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := tap.Read(ctx, func(p *Packet) error {
		n++
		if !bytes.HasSuffix(p.Data, []byte("own")) {
			t.Errorf("a foreign frame arrived: %x", p.Data)
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		t.Error(err)
	}
	if size, _, err := unix.Recvfrom(tap.fd, make([]byte, 1), unix.MSG_DONTWAIT|unix.MSG_TRUNC); err != unix.EAGAIN {
		t.Errorf("in the socket's own queue: a frame of %d bytes, %v", size, err)
	}
	return n
}
