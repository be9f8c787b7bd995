package conform_test

import (
	"bytes"
	"strings"
	"testing"

	"jailtap/bpf"
	"jailtap/compat/conform"
	"jailtap/compat/vectors"
)

func record(t *testing.T, set *vectors.Set, m conform.Mode) string {
	t.Helper()
	var file bytes.Buffer
	if err := conform.RecordAll(t.Context(), &file, conform.Header{System: "test"}, set, conform.VM{As: m}, nil); err != nil {
		t.Fatal(err)
	}
	return file.String()
}

func compare(a, b string) (*conform.Diff, error) {
	x, err := conform.ReadVerdicts("a", strings.NewReader(a))
	if err != nil {
		return nil, err
	}
	y, err := conform.ReadVerdicts("b", strings.NewReader(b))
	if err != nil {
		return nil, err
	}
	return conform.Compare(x, y)
}

func TestDialectsDifferWhereItIsDocumentedOnly(t *testing.T) {
	set := public(t)
	linux, receive := record(t, set, conform.Linux), record(t, set, conform.Receive)
	for _, files := range [][2]string{{linux, receive}, {receive, linux}} {
		d, err := compare(files[0], files[1])
		if err != nil {
			t.Fatal(err)
		}
		groups := map[bpf.Cause]int{}
		for _, g := range d.Groups {
			groups[g.Cause] = len(g.Pairs)
		}
		t.Logf("%d compared, %d alike, %v", d.Compared, d.Alike, groups)
		for _, c := range conform.Causes {
			if groups[c.Cause] == 0 && c.Cause != bpf.CauseIndex { // receives as Linux does
				t.Errorf("no difference for %s", c.Cause)
			}
		}
		if d.Undocumented() != 0 || d.Alike < 12_000 {
			t.Errorf("%d are not documented, %d alike", d.Undocumented(), d.Alike)
		}
	}
	if d, err := compare(linux, linux); err != nil || d.Alike != d.Compared || len(d.Groups) != 0 {
		t.Errorf("a file and itself: %+v (%v)", d, err)
	}
	flat := record(t, set, conform.Flat)
	d, err := compare(flat, receive)
	if err != nil || d.Undocumented() != 0 || len(d.Groups) != 3 { // half-word, index, and metadata read by ldh
		t.Errorf("FreeBSD's two: %d are not documented, %d groups (%v)", d.Undocumented(), len(d.Groups), err)
	}
}

const oneVector = `{"id":"a","kind":"interp","prog":[[48,0,0,0],[6,0,0,7]],"pkt":"4500","wirelen":2,"valid":true,"ret":7}` + "\n"

func oneSet(t *testing.T, text string) *vectors.Set {
	t.Helper()
	var set vectors.Set
	if err := set.Read("one", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return &set
}

func TestWhatIsNotDocumentedIsShown(t *testing.T) {
	a := record(t, oneSet(t, oneVector), conform.Linux)
	b := strings.Replace(record(t, oneSet(t, oneVector), conform.Receive), `"kept":7`, `"kept":1`, 1)
	d, err := compare(a, b)
	if err != nil || d.Undocumented() != 1 {
		t.Fatalf("%+v (%v)", d, err)
	}
	var text bytes.Buffer
	if err := d.Write(&text, 0); err != nil || !strings.Contains(text.String(), "not documented: 1\n  interp a, program, packet 0: A 7, B 1\n") {
		t.Errorf("%s (%v)", text.String(), err)
	}
}

func TestFilesThatCannotBeComparedAreErrors(t *testing.T) {
	a := record(t, oneSet(t, oneVector), conform.Linux)
	other := record(t, oneSet(t, strings.Replace(oneVector, "4500", "4501", 1)), conform.Linux)
	header, line, _ := strings.Cut(a, "\n")
	for name, c := range map[string]struct{ b, words string }{
		"another suite":         {other, "a and b answer different vectors"},
		"an empty file":         {"", "b: it is empty"},
		"vectors":               {oneVector, "b: line 1: no header of a verdict file"},
		"a header of nothing":   {"{}\n", "b: line 1: no header of a verdict file: it does not name its suite"},
		"a line that is broken": {header + "\n{\"id\":\n", "b: line 2: "},
		"an unknown field":      {header + "\n{\"idd\":\"a\"}\n", "b: line 2: "},
		"the same twice":        {a + line, "b: line 3: a second answer for interp a"},
		"no answers":            {header + "\n", "there is no question that both a and b answer"},
	} {
		if _, err := compare(a, c.b); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: error %v, want %q", name, err, c.words)
		}
	}
}
