package conform_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
	"jailtap/compat/conform"
	"jailtap/compat/vectors"
)

func public(t *testing.T) *vectors.Set {
	t.Helper()
	set, err := vectors.Public()
	if err != nil {
		t.Fatal(err)
	}
	return &set
}

// run asks the public vectors, and counts.
func run(t *testing.T, engines ...conform.Engine) (counts map[conform.Status]int, failures []conform.Outcome) {
	t.Helper()
	outcomes, err := conform.Run(t.Context(), public(t), engines, nil)
	if err != nil {
		t.Fatal(err)
	}
	counts = map[conform.Status]int{}
	for _, o := range outcomes {
		counts[o.Status]++
		if o.Status == conform.Failed {
			failures = append(failures, o)
		}
		if (o.Reason == "") != (o.Status == conform.Passed) {
			t.Errorf("%+v", o)
		}
	}
	return counts, failures
}

func TestTheReferencePassesAllPublicVectors(t *testing.T) {
	for _, c := range []struct {
		engines         []conform.Engine
		passed, skipped int
	}{
		{[]conform.Engine{conform.VM{As: conform.Linux}}, 8518, 8518}, // skipped: a kernel's answers
		{[]conform.Engine{conform.VM{As: conform.Flat}, conform.VM{As: conform.Receive}}, 17036, 0},
	} {
		counts, failures := run(t, c.engines...)
		if counts[conform.Passed] != c.passed || counts[conform.Skipped] != c.skipped || len(failures) > 0 {
			t.Errorf("%v: %v, want %d passed and %d skipped; failures %v", c.engines, counts, c.passed, c.skipped, failures)
		}
	}
}

// A faulty engine answers as the reference, but for one fault.
type faulty struct {
	conform.VM
	fault func(f conform.Filter, a conform.Answer) (conform.Answer, error)
}

func (e faulty) Ask(f conform.Filter, pkts []bpf.Packet) ([]conform.Answer, error) {
	answers, err := e.VM.Ask(f, pkts)
	for i := range answers {
		if answers[i], err = e.fault(f, answers[i]); err != nil {
			return nil, err
		}
	}
	return answers, err
}

func TestFaultsAreFound(t *testing.T) {
	counts, failures := run(t, faulty{conform.VM{As: conform.Linux}, func(f conform.Filter, a conform.Answer) (conform.Answer, error) {
		if f.Scope != nil && a.Kept == 262144 { // one byte less
			return conform.Verdict(262143), nil
		}
		return a, nil
	}})
	if counts[conform.Failed] < 500 || !strings.HasSuffix(failures[0].Reason, "262143, want 262144 (of 42 bytes)") {
		t.Errorf("%v, the first is %+v", counts, failures[0])
	}
	counts, failures = run(t, faulty{conform.VM{As: conform.Linux}, func(f conform.Filter, a conform.Answer) (conform.Answer, error) {
		if slices.ContainsFunc(f.Program, func(in xbpf.RawInstruction) bool { return in.Op == 0x94 }) {
			return a, conform.ErrRefused
		}
		return a, nil
	}})
	if counts[conform.Failed] < 20 || !strings.HasSuffix(failures[0].Reason, "the program is refused") {
		t.Errorf("%v, the first is %+v", counts, failures[0])
	}
	counts, _ = run(t, faulty{conform.VM{As: conform.Linux}, func(_ conform.Filter, a conform.Answer) (conform.Answer, error) {
		return conform.Answer{Cannot: "it is asleep"}, nil
	}})
	if counts[conform.Passed] > 1000 || counts[conform.Failed] > 0 { // programs that it refuses pass
		t.Errorf("an engine that does not answer: %v", counts)
	}
}

func TestThePageIsWhatTheReportPrints(t *testing.T) {
	var report bytes.Buffer
	if err := conform.Report(&report); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/PARITY.md")
	if err != nil || report.String() != string(page) {
		t.Errorf("docs/PARITY.md is stale (%v): make it anew with `jailtap conform report > docs/PARITY.md`", err)
	}
}

func TestTheTablesOfAttachesAreRight(t *testing.T) {
	for _, a := range conform.Attaches() {
		for d, want := range map[bpf.Dialect]bool{bpf.FreeBSD: a.FreeBSD, bpf.Linux: a.Linux} {
			if err := a.Program.Validate(d); (err == nil) != want {
				t.Errorf("%s: %v takes it: %v, want %v (%v)", a.What, d, err == nil, want, err)
			}
		}
	}
}

// The list is what BIOCSETF of a FreeBSD 12.1-STABLE kernel took.
func TestTheOpcodesAreThoseThatAFreeBSDKernelTook(t *testing.T) {
	observed := []uint16{
		0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x16, 0x1c, 0x1d, 0x20, 0x24, 0x25, 0x28, 0x2c, 0x2d,
		0x30, 0x34, 0x35, 0x3c, 0x3d, 0x40, 0x44, 0x45, 0x48, 0x4c, 0x4d, 0x50, 0x54, 0x5c, 0x60, 0x61, 0x64, 0x6c, 0x74, 0x7c,
		0x80, 0x81, 0x84, 0x87, 0x94, 0x9c, 0xa4, 0xac, 0xb1,
	}
	if got := conform.Opcodes(); !slices.Equal(got, observed) {
		t.Errorf("%#x", got)
	}
}
