package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jailtap/compat/vectors"
	"jailtap/internal/testutil"
)

const (
	goodVector = `{"id":"good","kind":"interp","prog":[[48,0,0,0],[6,0,0,7]],"pkt":"45000000000000000000000000000800","wirelen":16,"valid":true,"ret":7}`
	badVector  = `{"id":"bad","kind":"interp","prog":[[6,0,0,7]],"pkt":"4500","wirelen":2,"valid":true,"ret":8}`
	cutVector  = `{"id":"cut","kind":"interp","prog":[[128,0,0,0],[22,0,0,0]],"pkt":"4500","wirelen":60,"valid":true,"ret":60}`
)

func writeVectors(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "v.jsonl")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestConformRunEndsWithTheCounts(t *testing.T) {
	file := writeVectors(t, goodVector, cutVector)
	if r := jailtap(t, "conform run "+file).mustSucceed(t); r.stdout != "2 passed, 0 failed, 0 skipped\n" || r.stderr != "" {
		t.Errorf("%q, %q", r.stdout, r.stderr)
	}
	r := jailtap(t, "conform run -v --engine cbpf "+file).mustSucceed(t)
	if want := "passed interp good (cbpf)\nskipped interp cut (cbpf): the program asks for the length"; !strings.HasPrefix(r.stdout, want) {
		t.Errorf("%q", r.stdout)
	}
	if !strings.HasSuffix(r.stdout, "\n1 passed, 0 failed, 1 skipped\n") || !strings.HasPrefix(r.stderr, "jailtap: skipped 1: engine cbpf: the program asks") {
		t.Errorf("%q, %q", r.stdout, r.stderr)
	}
	r = jailtapWith(t, goodVector, "conform run --json --dialect freebsd -")
	first, _, _ := strings.Cut(r.mustSucceed(t).stdout, "\n")
	var outcome struct{ ID, Kind, Engine, Status string }
	if err := json.Unmarshal([]byte(first), &outcome); err != nil || outcome.ID != "good" || outcome.Status != "passed" {
		t.Errorf("%q (%v)", first, err)
	}
}

func TestConformRunExplainsFailures(t *testing.T) {
	r := jailtap(t, "conform run "+writeVectors(t, goodVector, badVector))
	want := "failed interp bad (vm): linux, program: packet 0: 7, want 8 (of 2 bytes)\n1 passed, 1 failed, 0 skipped\n"
	if r.status != 1 || r.stdout != want || r.stderr != "jailtap: 1 vectors failed\n" {
		t.Errorf("status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
}

func TestAnEngineThatIsNotHereSkipsAll(t *testing.T) {
	r := jailtap(t, "conform run --engine cbpf --dialect freebsd "+writeVectors(t, goodVector)).mustSucceed(t)
	if r.stdout != "0 passed, 0 failed, 1 skipped\n" || !strings.Contains(r.stderr, "skipped 1: engine cbpf: ") {
		t.Errorf("%q, %q", r.stdout, r.stderr)
	}
}

func TestConformRunAllAsksEveryEngine(t *testing.T) {
	testutil.NeedRoot(t)
	r := jailtap(t, "conform run -v --engine all "+writeVectors(t, goodVector)).mustSucceed(t)
	for _, engine := range []string{"vm", "cbpf", "ebpf", "wire", "native"} {
		if !strings.Contains(r.stdout, "passed interp good ("+engine+")\n") {
			t.Errorf("no %s: %q, %q", engine, r.stdout, r.stderr)
		}
	}
	if want := "skipped interp good (hub): a hub is for captures with a scope\n"; !strings.Contains(r.stdout, want) {
		t.Errorf("%q, want %q", r.stdout, want)
	}
	if !strings.HasSuffix(r.stdout, "\n6 passed, 0 failed, 1 skipped\n") { // vm in both dialects
		t.Errorf("%q", r.stdout)
	}
}

func TestVectorsThatCannotBeReadAreErrors(t *testing.T) {
	file := writeVectors(t, goodVector, `{"id":"x","kind":"dance","prog":[],"pkt":""}`)
	jailtap(t, "conform run "+file).mustFail(t, 1, file+": line 2: unknown kind \"dance\"")
	jailtap(t, "conform run "+writeVectors(t, "")).mustFail(t, 1, "no vectors in ")
	jailtap(t, "conform run /nonexistent.jsonl").mustFail(t, 1, "no such file")
	zipped := filepath.Join(t.TempDir(), "v.jsonl.gz")
	os.WriteFile(zipped, []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56"), 0o666)
	jailtap(t, "conform run "+zipped).mustFail(t, 1, zipped+": line 1: unexpected EOF")
}

func TestVerdictFilesAreCompared(t *testing.T) {
	dir := t.TempDir()
	text, err := vectors.Generate(3, 300, "interp")
	if err != nil {
		t.Fatal(err)
	}
	file, other := writeVectors(t, string(text)), writeVectors(t, goodVector)
	linux, freebsd, one := filepath.Join(dir, "linux"), filepath.Join(dir, "freebsd"), filepath.Join(dir, "one")
	jailtap(t, "conform record --dialect linux -o "+linux+" "+file).mustSucceed(t)
	jailtap(t, "conform record --dialect freebsd -o "+freebsd+" "+file).mustSucceed(t)
	jailtap(t, "conform record -o "+one+" "+other).mustSucceed(t)

	r := jailtap(t, "conform diff "+freebsd+" "+linux).mustSucceed(t)
	if !strings.Contains(r.stdout, "\nmemory: ") || !strings.Contains(r.stdout, " 0 not documented") {
		t.Errorf("%q", r.stdout)
	}
	if r := jailtap(t, "conform diff --json "+freebsd+" "+linux).mustSucceed(t); !strings.HasPrefix(r.stdout, `{"a":{"system":`) {
		t.Errorf("%q", r.stdout)
	}
	jailtap(t, "conform diff "+linux+" "+one).mustFail(t, 1, "answer different vectors")

	verdicts, _ := os.ReadFile(linux)
	changed := strings.Replace(string(verdicts), `"kept":0,"passed":false,"exact":true,"as_known":true`, `"kept":5,"passed":true,"exact":true,"as_known":false`, 1)
	os.WriteFile(linux, []byte(changed), 0o666)
	r = jailtap(t, "conform diff "+freebsd+" "+linux)
	if r.status != 1 || !strings.Contains(r.stdout, "\nnot documented: 1\n") || !strings.Contains(r.stderr, "1 differences are not documented") {
		t.Errorf("status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
	jailtap(t, "conform record -o "+one+" /nonexistent").mustFail(t, 1, "no such file")
	jailtap(t, "conform record --engine cbpf --dialect freebsd "+other).mustFail(t, 1, "engine cbpf speaks dialect linux here")
}

func TestConformMakesVectors(t *testing.T) {
	r := jailtap(t, "conform generate --kind accept -n 20 --seed 5").mustSucceed(t)
	if strings.Count(r.stdout, "\n") != 20 {
		t.Errorf("%q", r.stdout)
	}
	if r = jailtapWith(t, r.stdout, "conform run -").mustSucceed(t); r.stdout != "20 passed, 0 failed, 0 skipped\n" {
		t.Errorf("%q", r.stdout)
	}
}

func TestConformCommandLinesWithoutSense(t *testing.T) {
	for line, words := range map[string]string{
		"conform":                        "name a command: run, record, diff, report, generate",
		"conform run":                    "name the files with the vectors",
		"conform run --engine jit f":     `unknown engine "jit"`,
		"conform run --dialect plan9 f":  `unknown dialect "plan9"`,
		"conform record --engine all f":  `unknown engine "all"`,
		"conform diff a":                 "name two verdict files",
		"conform report now":             `unknown command "now"`,
		"conform generate --kind limit":  `unknown kind "limit"`,
		"conform generate -n 0":          "bad number of vectors 0",
		"conform generate --seed minus1": "invalid argument",
	} {
		jailtap(t, line).mustFail(t, 2, words)
	}
	for _, command := range []string{"", " run", " record", " diff", " report", " generate"} {
		if r := jailtap(t, "conform"+command+" --help").mustSucceed(t); !strings.Contains(r.stdout, "Examples:\n  jailtap conform") {
			t.Errorf("%s--help has no example:\n%s", command, r.stdout)
		}
	}
}
