package loader

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

func TestASpareBecomesACaptiveOfItsScope(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	spare, err := w.Prepare(CaptiveConfig{Namespace: l.near, Scope: bpf.Scope{Policy: bpf.Full}})
	if err != nil {
		t.Fatal(err)
	}
	defer spare.Close()
	l.send(t, udp(1, 2, "too early"))
	c, err := spare.Captive("eth0", scopeOf(1).Addrs)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.send(t, udp(1, 2, "own"), udp(3, 2, "foreign"))
	wantFrames(t, arriving(t, c), udp(1, 2, "own"))
	if err := unix.SetsockoptInt(c.FD(), unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); !errors.Is(err, unix.EPERM) {
		t.Errorf("PACKET_QDISC_BYPASS: %v, want EPERM", err)
	}
	if _, err := spare.Captive("eth0", nil); err == nil {
		t.Error("a spare was used twice")
	}
}

func TestASpareThatDoesNotFitSaysSo(t *testing.T) {
	w, _ := newWarden(t)
	l := newLab(t)
	newTun(t, l.near)
	for name, take := range map[string]func(*Spare) (*Captive, error){
		"another link type":       func(s *Spare) (*Captive, error) { return s.Captive("tun0", nil) },
		"more addresses than fit": func(s *Spare) (*Captive, error) { return s.Captive("eth0", hosts(5000, false, true)) },
	} {
		spare, err := w.Prepare(CaptiveConfig{Namespace: l.near})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := take(spare); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v, want unsupported", name, err)
		}
	}
}

// BenchmarkAsking compares what a captive socket with a ring takes from when it is
// asked for.
func BenchmarkAsking(b *testing.B) {
	w, _ := newWarden(b)
	l := newLab(b)
	for _, ring := range []int{0, 2 << 20} {
		cfg := CaptiveConfig{Namespace: l.near, Scope: scopeOf(1), Interface: "eth0", RingBytes: ring}
		b.Run(fmt.Sprintf("new/ring=%d", ring), func(b *testing.B) {
			for b.Loop() {
				c, err := w.Captive(cfg)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				c.Close()
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("spare/ring=%d", ring), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				spare, err := w.Prepare(cfg)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				c, err := spare.Captive("eth0", cfg.Scope.Addrs)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				c.Close()
				b.StartTimer()
			}
		})
	}
}
