// Package testutil is what the tests of several packages share: skipping by
// the rules, networks of their own, and frames to send. It takes and returns
// bytes and imports nothing that is under test.
package testutil

import (
	"os"
	"testing"
)

// Skip skips a test for want of something that the machine does not have. Under
// JAILTAP_MUST_RUN=1, as in `make test`, it fails instead: there nothing may be
// missing.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("JAILTAP_MUST_RUN") == "1" {
		t.Fatalf("must run, but: "+format, args...)
	}
	t.Skipf(format, args...)
}

// NeedRoot skips a test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}
