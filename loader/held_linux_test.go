package loader

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// holding is a Tap of a captive socket, as somebody else makes one of it.
func (l lab) holding(t *testing.T, w *Warden, cfg CaptiveConfig, how HeldConfig) (*Tap, *Captive) {
	t.Helper()
	cfg.Namespace = l.near
	c := newCaptive(t, w, cfg)
	how.Interface, how.Index, how.LinkType = cfg.Interface, c.Index(), c.LinkType()
	how.HasRing, how.RingBytes = cfg.RingBytes > 0, max(cfg.RingBytes, how.RingBytes)
	tap, err := Hold(held(t, c), how)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Close() })
	return tap, c
}

func TestAHeldSocketIsReadAsAnyOther(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	for name, c := range map[string]struct {
		iface string
		ring  int
		how   HeldConfig
	}{
		"with its ring":     {"eth0", 256 << 10, HeldConfig{}},
		"without":           {"eth0", 0, HeldConfig{}},
		"immediate":         {"eth0", 0, HeldConfig{Immediate: true, RingBytes: 512 << 10}},
		"on all interfaces": {Any, 256 << 10, HeldConfig{}},
	} {
		t.Run(name, func(t *testing.T) {
			tap, captive := l.holding(t, w, CaptiveConfig{Interface: c.iface, Scope: scopeOf(1), RingBytes: c.ring}, c.how)
			captive.Release()
			l.send(t, udp(1, 2, "own"), udp(2, 3, "foreign"), udp(1, 2, "own"))
			want := tap.LinkType()
			n := 0
			err := tap.Read(t.Context(), func(p *Packet) error {
				if n++; p.Len != len(udp(1, 2, "own"))+map[bpf.LinkType]int{bpf.LinuxSLL2: sll2Len - ethernetLen}[want] {
					t.Errorf("a packet of %d bytes", p.Len)
				}
				if n == 2 {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				t.Fatal(err)
			}
			if err := tap.SetScope(scopeOf(2)); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("its holder sets the scope: %v", err)
			}
		})
	}
}

const ethernetLen = 14

func TestAHeldSocketsCountsAreThoseOfWhoKeepsThem(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	var c *Captive
	gone := false
	tap, c := l.holding(t, w, CaptiveConfig{Interface: "eth0", Scope: scopeOf(1)}, HeldConfig{Counts: func() (CaptiveStats, error) {
		if gone {
			return CaptiveStats{}, errors.New("gone")
		}
		return c.Stats()
	}})
	l.send(t, udp(1, 2, "own"), udp(2, 3, "foreign"))
	ctx, cancel := context.WithCancel(t.Context())
	tap.Read(ctx, func(*Packet) error { cancel(); return nil })
	s, err := tap.Stats()
	if err != nil || s.Received != 1 || s.Seen == nil || *s.Seen < 2 || *s.InScope != 1 || *s.Matched != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	gone = true
	if s, err := tap.Stats(); err != nil || s.Received != 1 || s.Seen != nil {
		t.Errorf("without: %+v, %v", s, err)
	}
}

// What is left of a filter sees whole frames, with what the kernel took out.
func TestWhatIsLeftOfAFilterRunsAtTheHolders(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	tap, _ := l.holding(t, w, CaptiveConfig{Interface: "eth0", Scope: scopeOf(1)}, HeldConfig{Program: bpf.Program{
		{Op: 0x28, K: 12}, {Op: 0x15, Jf: 3, K: 0x0800}, {Op: 0x20, K: 30}, {Op: 0x15, Jf: 1, K: 0x0a000003}, {Op: 6, K: 20}, {Op: 6},
	}})
	l.send(t, udp(1, 2, "not"), udp(1, 3, "this"))
	ctx, cancel := context.WithCancel(t.Context())
	tap.Read(ctx, func(p *Packet) error {
		if cancel(); len(p.Data) != 20 || p.Len != len(udp(1, 3, "this")) {
			t.Errorf("%d of %d bytes", len(p.Data), p.Len)
		}
		return nil
	})
	if s, err := tap.Stats(); err != nil || *s.Matched != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestOnlyAPacketSocketIsHeld(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if tap, err := Hold(fd, HeldConfig{}); err == nil {
		tap.Close()
		t.Error("a unix socket is held")
	}
	if err := unix.Close(fd); !errors.Is(err, unix.EBADF) {
		t.Error("it is left open")
	}
}
