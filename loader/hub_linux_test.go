package loader

import (
	"testing"

	"jailtap/internal/testutil"
)

func TestZZ(t *testing.T) {
	l := newLab(t)
	tap := l.open(t, Config{Hub: true, Scope: scopeOf(1)})
	t.Log(tap.Reason())
	two := l.open(t, Config{Hub: true, Scope: scopeOf(2)})
	t.Log(two.Reason())
	_ = testutil.ACK
	check(t, l.exchange(t, tap, udp(1, 2, "a"), udp(2, 3, "b"), udp(3, 4, "c")), udp(1, 2, "a"))
	check(t, until(t, two, "the end"), udp(1, 2, "a"), udp(2, 3, "b"))
	s, err := tap.Stats()
	t.Log(s, err, *s.Seen, *s.InScope, *s.Matched)
}
