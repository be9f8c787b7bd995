package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"jailtap/internal/testutil"
)

func TestTheDemoFindsNoForeignFrameAndMissesNone(t *testing.T) {
	testutil.NeedRoot(t)
	if testing.Short() {
		testutil.Skip(t, "it takes some seconds")
	}
	dir := t.TempDir()
	jailtap, demo := build(t, dir, "cmd/jailtap"), build(t, dir, "integration/demo")

	out, err := exec.Command(demo, "-jailtap", jailtap, "-o", filepath.Join(dir, "captures")).CombinedOutput()
	if err != nil {
		t.Errorf("the demo: %v", err)
	}
	t.Logf("%s", out)
	files, _ := filepath.Glob(filepath.Join(dir, "captures", "*.pcapng"))
	if len(files) != 10 { // the reference, and three jails with two engines and through the hub
		t.Errorf("%d captures were left: %s", len(files), strings.Join(files, " "))
	}
	if left, _ := filepath.Glob("/run/netns/jtd-*"); len(left) > 0 {
		t.Errorf("namespaces were left: %s", strings.Join(left, " "))
	}
}

// build makes a program of ours and returns its path.
func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	program := filepath.Join(dir, filepath.Base(pkg))
	if out, err := exec.Command("go", "build", "-o", program, module+"/"+pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return program
}
