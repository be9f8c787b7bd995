package jailconf

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of parameters into docs/JAILS.md")

const page = "../../docs/JAILS.md"

// docs/JAILS.md has each parameter with its fate.
func TestTheDocumentationHasAllParameters(t *testing.T) {
	const begin, end = "<!-- parameters -->\n", "<!-- end of parameters -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for parameters", page)
	}
	want := parameters()
	if *update {
		if err := os.WriteFile(page, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("%s is not what the parameters are: go test ./compat/jailconf -update", page)
	}
}

// parameters is the table, in the alphabet's order.
func parameters() string {
	var b strings.Builder
	fmt.Fprint(&b, "| parameter | | |\n| --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(table)) {
		v := table[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, v.Fate, v.Reason)
		for _, value := range slices.Sorted(maps.Keys(v.but)) {
			e := v.but[value]
			fmt.Fprintf(&b, "| `%s` (%s) | %s | %s |\n", name, value, e.fate, e.reason)
		}
	}
	return b.String()
}
