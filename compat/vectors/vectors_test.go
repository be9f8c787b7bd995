package vectors_test

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"jailtap/compat/vectors"
)

func TestVectorsArePlainOrGzipped(t *testing.T) {
	const lines = `{"id":"a","kind":"interp","prog":[[6,0,0,4294967295]],"pkt":"00ff","wirelen":60,"valid":true,"ret":4294967295}

{"id":"b","kind":"scope","linktype":101,"addrs":["10.0.0.5"],"policy":"classic-host","user":[],"pkt":"","wirelen":0,"want_scope":false}`
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write([]byte(lines))
	w.Close()

	for _, text := range []string{lines, zipped.String()} {
		var set vectors.Set
		if err := set.Read("some", strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if len(set.Interp) != 1 || len(set.Scope) != 1 || set.Interp[0].Ret != 4294967295 || set.Scope[0].LinkType != 12 {
			t.Errorf("read %+v", set)
		}
	}

	var set vectors.Set
	cut := zipped.String()[:zipped.Len()-5]
	err := set.Read("cut.gz", strings.NewReader(cut))
	if err == nil || !strings.HasPrefix(err.Error(), "cut.gz: line 3: unexpected EOF") {
		t.Errorf("a truncated file gives %v", err)
	}
}

func TestAVectorThatIsNotUnderstoodIsAnError(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"id":"a","kind":"dance","prog":[],"pkt":""}`, `unknown kind "dance"`},
		{`{"id":"a"}`, "neither a kind, nor the file"},
		{`{"kind":"interp","prog":[],"pkt":""}`, "needs id"},
		{`{"id":"a","kind":"interp","pkt":""}`, "needs id"},
		{`{"id":"a","kind":"scope","user":[]}`, "needs id"},
		{`{"id":"a","kind":"interp","prog":[[6,0,0]],"pkt":""}`, "instruction 0: [6 0 0] is not"},
		{`{"id":"a","kind":"interp","prog":[[6,0,256,0]],"pkt":""}`, "instruction 0: [6 0 256 0] is not"},
		{`{"id":"a","kind":"interp","prog":[[6,0,0,4294967296]],"pkt":""}`, "4294967296"},
		{`{"id":"a","kind":"interp","prog":[],"pkt":"0"}`, "odd length"},
		{`{"id":"a","kind":"interp","prog":[],"pkt":"","linux":"same"}`, `unknown answer of Linux "same"`},
		{`{"id":"a","kind":"scope","user":[],"pkt":"","policy":"none"}`, `unknown policy "none"`},
		{`{"id":"a","kind":"scope","user":[],"pkt":"","addrs":["10.0.0"]}`, "10.0.0"},
		{`{"id":"a","kind":"scope","user":[],"pkt":"","linktype":117}`, "unknown link type 117"},
		{`{"id":"a","kind":"accept","user":[]}`, "needs id"},
		{`{"id":`, "unexpected end"},
	} {
		var set vectors.Set
		err := set.Read("f", strings.NewReader("\n"+c.line+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "f: line 2: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.line, err, c.want)
		}
	}
}
