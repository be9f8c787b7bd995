package world_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jailtap/nsjail/world"
)

// build makes a world in a folder of the test's.
func build(t *testing.T, p world.Profile, o world.Options) (dir string, r world.Result) {
	t.Helper()
	if o.Target == "" {
		o.Target = filepath.Join(t.TempDir(), "world")
	}
	r, err := world.Build(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	return o.Target, r
}

func builtin(t *testing.T, name string) world.Profile {
	t.Helper()
	p, err := world.Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// commands stands in for jailtap, which is not of the system.
func commands(t *testing.T) map[string]string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"jailtap": self}
}

// A system is a folder that is copied from, made of files by path: a link if the text
// begins with "-> ", and executable.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, isLink := strings.CutPrefix(text, "-> "); isLink {
			err = os.Symlink(target, file)
		} else {
			err = os.WriteFile(file, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// mustNotBuild checks the error, and that nothing is left.
func mustNotBuild(t *testing.T, p world.Profile, o world.Options, words string) {
	t.Helper()
	if o.Target == "" {
		o.Target = filepath.Join(t.TempDir(), "world")
	}
	_, err := world.Build(t.Context(), p, o)
	if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line with %q", err, words)
	}
	mustHoldOnly(t, filepath.Dir(o.Target))
}

// mustHoldOnly checks what is in a folder.
func mustHoldOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, e := range entries {
		there = append(there, e.Name())
	}
	if strings.Join(there, " ") != strings.Join(names, " ") {
		t.Errorf("in %s are %q, want %q", dir, there, names)
	}
}
