package broker

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhoAsksForTheSameGetsASpare(t *testing.T) {
	b := open(t, Jail{}, func(b *bureau) { b.stocks = true })
	r := Request{Interface: "eth0", Ring: 1 << 20, Immediate: true}
	b.capture(t, r)
	if b.last().spare {
		t.Error("the first was a spare before anybody asked")
	}
	eventually(t, "spares", func() bool { return b.ready() == sparesOfKind })
	b.capture(t, r)
	made := b.last()
	if !made.spare || made.cfg.RingBytes != 1<<20 || !made.cfg.Immediate || made.cfg.Label != "test/web" || len(made.cfg.Scope.Addrs) != 1 {
		t.Errorf("spare %v, %+v", made.spare, made.cfg)
	}
	eventually(t, "another spare", func() bool { return b.ready() == sparesOfKind })
	for _, other := range []Request{{Interface: "eth1", Ring: 1 << 20, Immediate: true}, {Interface: "eth0", Ring: 1 << 20}, {Interface: "eth0", Ring: 2 << 20, Immediate: true}} {
		b.capture(t, other)
		if b.last().spare {
			t.Errorf("%+v is a spare of another kind", other)
		}
	}
}

func TestASpareThatIsTooSmallIsNotUsed(t *testing.T) {
	estate := newEstate(1, 2, 3)
	b := open(t, Jail{Scope: estate}, func(b *bureau) { b.stocks, b.tooFew = true, 2 })
	for range 2 {
		b.capture(t, Request{Interface: "eth0"})
		if b.last().spare {
			t.Error("a spare without room for the addresses")
		}
		eventually(t, "spares", func() bool { return b.ready() == sparesOfKind })
	}
}

func TestSparesAreFewAndEnd(t *testing.T) {
	b := open(t, Jail{}, func(b *bureau) { b.stocks = true })
	for _, iface := range []string{"eth0", "eth1", "eth2", "eth3"} {
		b.capture(t, Request{Interface: iface})
		eventually(t, "a full store", func() bool { w := b.list()[0]; w.mu.Lock(); defer w.mu.Unlock(); return !w.stocking })
	}
	if n := b.ready(); n != sparesOfWard {
		t.Errorf("%d spares, want %d", n, sparesOfWard)
	}
	b.capture(t, Request{Interface: "eth9", Ring: largestSpare + 1})
	b.capture(t, Request{})
	if n := b.ready(); n != sparesOfWard {
		t.Errorf("%d spares after requests that none are kept for, want %d", n, sparesOfWard)
	}
	b.sweep(time.Hour)
	if n := b.ready(); n != sparesOfWard {
		t.Errorf("%d spares while they may be wanted, want %d", n, sparesOfWard)
	}
	b.sweep(0)
	if n := b.ready(); n != 0 {
		t.Errorf("%d spares that nobody has asked for in a while", n)
	}
	b.capture(t, Request{Interface: "eth0"})
	b.stop()
	if n := b.ready(); n != 0 {
		t.Errorf("%d spares are left", n)
	}
}

func TestSparesGiveWayWhenDescriptorsAreShort(t *testing.T) {
	b := open(t, Jail{}, func(b *bureau) { b.stocks = true })
	b.capture(t, Request{Interface: "eth0"})
	eventually(t, "spares", func() bool { return b.ready() == sparesOfKind })
	short := 1
	b.interpose(func() {
		b.refuses(nil)
		if short > 0 {
			short--
			b.refuses(unix.EMFILE)
		}
	})
	b.capture(t, Request{Interface: "eth1"})
	if made := b.last(); made.cfg.Interface != "eth1" || made.spare {
		t.Errorf("spare %v, %+v", made.spare, made.cfg)
	}
}
