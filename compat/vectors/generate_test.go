package vectors_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"jailtap/bpf"
	"jailtap/compat/vectors"
)

func generate(t *testing.T, seed uint64, n int, kind string) []byte {
	t.Helper()
	lines, err := vectors.Generate(seed, n, kind)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// The same arguments give the same vectors, also with the next version.
func TestGeneratedVectorsStayTheSame(t *testing.T) {
	for kind, want := range map[string]string{
		"interp": "6fd4ec9ca976370c",
		"scope":  "f1bb8c49ca2f9ce5",
		"accept": "82e5a57959a8bdc4",
	} {
		sum := sha256.Sum256(generate(t, 2008, 500, kind))
		if got := hex.EncodeToString(sum[:8]); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
		if bytes.Equal(generate(t, 1, 10, kind), generate(t, 2, 10, kind)) {
			t.Errorf("%s: another seed gives the same", kind)
		}
	}
	if _, err := vectors.Generate(1, 1, "limit"); err == nil {
		t.Error("kind limit is generated")
	}
}

func TestGeneratedVectorsAskAllKindsOfThings(t *testing.T) {
	var set vectors.Set
	for _, kind := range []string{"interp", "scope", "accept"} {
		if err := set.Read(kind, bytes.NewReader(generate(t, 7, 1000, kind))); err != nil {
			t.Fatal(err)
		}
	}
	n := map[string]int{}
	count := func(what string, is bool) {
		if is {
			n[what]++
		}
	}
	for _, v := range set.Interp {
		count("valid", v.Valid)
		count("not valid", !v.Valid)
		count("kept", v.Ret != 0)
		count("other in an mbuf", v.RetMbuf != nil)
		count("refused by Linux", v.Linux == vectors.LinuxRefuses)
	}
	for _, v := range set.Scope {
		count("in scope", v.WantScope)
		count("out of scope", !v.WantScope)
		count("in scope and kept", v.Want != 0)
		count("not Ethernet", v.LinkType != vectors.LinkType(bpf.Ethernet))
		count("no filter", len(v.User) == 0)
	}
	for _, v := range set.Accept {
		for _, r := range v.Results {
			count("accepted", r != 0)
			count("rejected", r == 0)
		}
	}
	for _, what := range []string{"valid", "not valid", "kept", "other in an mbuf", "refused by Linux", "in scope", "out of scope",
		"in scope and kept", "not Ethernet", "no filter", "accepted", "rejected"} {
		if n[what] < 20 {
			t.Errorf("%d times %s", n[what], what)
		}
	}
}

func TestAcceptVectorsSayVerdictsOrWhether(t *testing.T) {
	const line = `{"id":"a","kind":"accept","linktype":1,"filter":"","user":[],"pkts":["00","01"],"wirelens":[1,1],"results":`
	for results, whether := range map[string]bool{"[0,1]": true, "[false,true]": true, "[0,262144]": false} {
		var set vectors.Set
		if err := set.Read("f", bytes.NewReader([]byte(line+results+"}"))); err != nil {
			t.Errorf("%s: %v", results, err)
		} else if v := set.Accept[0]; v.Whether() != whether || v.Results[0] != 0 || v.Results[1] == 0 {
			t.Errorf("%s: %+v", results, v)
		}
	}
	for _, results := range []string{"[0]", "[0,1,2]", `["a",1]`, "0", "[0,-1]"} {
		var set vectors.Set
		if err := set.Read("f", bytes.NewReader([]byte(line+results+"}"))); err == nil {
			t.Errorf("results %s are taken", results)
		}
	}
}

func TestTheHashIsAboutTheVectorsAndNotTheirOrder(t *testing.T) {
	read := func(texts ...[]byte) string {
		var set vectors.Set
		for _, text := range texts {
			if err := set.Read("f", bytes.NewReader(text)); err != nil {
				t.Fatal(err)
			}
		}
		return set.Hash()
	}
	a, b := generate(t, 1, 10, "interp"), generate(t, 1, 10, "scope")
	answer := []byte(`{"id":"x","file":"interp","valid":true,"ran":false}`)
	if read(a, b) != read(b, a) || read(a, b) != read(a, b, answer) {
		t.Error("the same vectors have another hash")
	}
	if read(a) == read(a, b) || read(a) == read(a, a) {
		t.Error("other vectors have the same hash")
	}
}
