//go:build linux

package main

import (
	"net/netip"
	"slices"
	"testing"

	"jailtap/bpf"
	"jailtap/internal/testutil"
)

var (
	own     = frame("10.0.0.1:1", "10.0.0.2:2")
	own2    = frame("10.0.0.3:1", "10.0.0.1:2")
	foreign = frame("10.0.0.3:1", "10.0.0.2:2")
	scope   = bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}}
)

func frame(src, dst string) string {
	return string(testutil.UDP4(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), nil))
}

func TestTheComparisonCountsWhatIsWrongWithACapture(t *testing.T) {
	wire := []string{own, foreign, own2, own, foreign}
	for name, test := range map[string]struct {
		captured []string
		want     comparison
	}{
		"just its own":     {[]string{own, own2, own}, comparison{own: 3}},
		"in another order": {[]string{own2, own, own}, comparison{own: 3}},
		"a foreign frame":  {[]string{own, foreign, own2, own}, comparison{own: 3, foreign: 1}},
		"one of two lost":  {[]string{own, own2}, comparison{own: 3, missed: 1}},
		"nothing captured": {nil, comparison{own: 3, missed: 3}},
		"one twice":        {[]string{own, own2, own2, own}, comparison{own: 3, extra: 1}},
	} {
		got := compare(scope, wire, test.captured)
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		if exact := test.want == (comparison{own: 3}); got.exact() != exact {
			t.Errorf("%s: exact() = %v", name, !exact)
		}
	}
}

func TestOnlyFramesBetweenTheMarkersCount(t *testing.T) {
	frames := []string{"before", "start", "a", "b", "end", "after"}
	got, err := between(frames, "start", "end")
	if want := []string{"a", "b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for _, missing := range [][2]string{{"none", "end"}, {"start", "none"}, {"end", "start"}} {
		if _, err := between(frames, missing[0], missing[1]); err == nil {
			t.Errorf("no error for markers %q", missing)
		}
	}
}

func TestAFailureIsToldForEveryFault(t *testing.T) {
	web := &host{name: "web"}
	reference := result{capture: &capture{}}
	good := result{capture: &capture{host: web}, comparison: comparison{own: 1}}
	if err := failure([]result{reference, good}); err != nil {
		t.Errorf("a good result fails: %v", err)
	}
	for _, wrong := range []comparison{{}, {own: 1, foreign: 1}, {own: 1, missed: 1}, {own: 1, extra: 1}} {
		if failure([]result{reference, {capture: &capture{host: web}, comparison: wrong}}) == nil {
			t.Errorf("no failure for %+v", wrong)
		}
	}
	reference.capture.stats.Dropped = 1
	if failure([]result{reference, good}) == nil {
		t.Error("no failure although the reference dropped a frame")
	}
}
