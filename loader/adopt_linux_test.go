package loader

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

func TestACaptiveIsTakenUpWithItsFilterAndItsAddresses(t *testing.T) {
	w, cfg := newWarden(t)
	l := newLab(t)
	made := newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1, 9), Interface: "eth0", Label: "one/web"})
	newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1), Interface: "eth0", Label: "two/web"})
	newCaptive(t, w, CaptiveConfig{Namespace: l.near, Scope: scopeOf(1), Interface: "eth0"})
	if err := made.SetFilter(toStation3); err != nil {
		t.Fatal(err)
	}
	fd := held(t, made)
	made.Close() // as if its process were no more, but for the holder

	next, err := OpenWarden(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	found, err := next.Adopt("one/")
	if err != nil || len(found) != 1 {
		t.Fatalf("%d found, %v; want 1", len(found), err)
	}
	c := found[0]
	defer c.Close()
	if c.Label() != "one/web" || c.FD() != -1 || !c.Alive() {
		t.Errorf("found %q, descriptor %d, alive %v", c.Label(), c.FD(), c.Alive())
	}

	holder := &Captive{captive{socket: fd}}
	exchange := func() [][]byte {
		l.send(t, udp(1, 2, "a"), udp(1, 3, "bb"), udp(4, 3, "cc"), udp(9, 3, "dd"))
		return arriving(t, holder)
	}
	wantFrames(t, exchange(), udp(1, 3, "bb")[:40], udp(9, 3, "dd")[:40]) // the filter is still there
	if err := c.SetScope(scopeOf(4)); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, exchange(), udp(4, 3, "cc")[:40]) // what was in scope before is not any more
	if err := c.SetFilter(returns(bpf.KeepAll)); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, exchange(), udp(4, 3, "cc"))
	other := scopeOf(4)
	other.Policy = bpf.Classic
	if err := c.SetScope(other); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("another policy: %v, want unsupported", err)
	}
	if err := c.Revoke(); err != nil {
		t.Fatal(err)
	}
	wantFrames(t, exchange())
	if stats, err := c.Stats(); err != nil || stats.Seen == 0 {
		t.Errorf("%+v, %v", stats, err)
	}

	// What was revoked stays so for the next one that takes it up.
	again, err := next.Adopt("one/")
	if err != nil || len(again) != 1 {
		t.Fatalf("%d found, %v; want 1", len(again), err)
	}
	defer again[0].Close()
	if err := again[0].SetScope(scopeOf(1)); err == nil {
		t.Error("the scope of a revoked captive was set")
	}
	unix.Close(fd)
}

func TestALabelThatIsTooLongIsAnError(t *testing.T) {
	w, _ := newWarden(t)
	label := string(make([]byte, 64))
	if _, err := w.Captive(CaptiveConfig{Namespace: newLab(t).near, Scope: scopeOf(1), Label: label}); err == nil {
		t.Error("no error")
	}
}
