package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
	namedFile = regexp.MustCompile("`((?:bpf|loader|nsjail|compat|cmd|internal|integration)/[A-Za-z0-9_/]+(?:\\.go)?)`")
)

func TestWhatTheDocumentsNameExists(t *testing.T) {
	tests := sources(t)
	named := 0
	for _, doc := range []string{"README.md", "docs/SECURITY.md", "docs/ARCHITECTURE.md"} {
		text, err := os.ReadFile(filepath.Join("..", doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedTest.FindAllStringSubmatch(string(text), -1) {
			named++
			if !strings.Contains(tests, "\nfunc "+m[1]+"(") {
				t.Errorf("%s names the test %s, which does not exist", doc, m[1])
			}
		}
		for _, m := range namedFile.FindAllStringSubmatch(string(text), -1) {
			named++
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("%s names %s: %v", doc, m[1], err)
			}
		}
	}
	if named < 20 {
		t.Errorf("the documents name %d tests and files only: have their forms changed?", named)
	}
}

// sources is the text of all tests.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
