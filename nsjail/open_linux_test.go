package nsjail

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"jailtap/internal/testutil"
)

func TestAJailIsTheSameByNameByPathAndByPID(t *testing.T) {
	ns := testutil.NewNamespace(t)
	sleeper := exec.Command("sleep", "60")
	if err := ns.Do(sleeper.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sleeper.Process.Kill(); sleeper.Wait() })

	byPID, err := OpenPID(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer byPID.Close()
	if byName, byPath := mustOpen(t, ns.Name), mustOpen(t, ns.Path); byName.ID() != byPath.ID() || byName.ID() != byPID.ID() {
		t.Errorf("by name %v, by path %v, by pid %v", byName.ID(), byPath.ID(), byPID.ID())
	}
	if other := mustOpen(t, testutil.NewNamespace(t).Name); other.ID() == byPID.ID() {
		t.Errorf("%s and %s have the same ID %v", other, byPID, other.ID())
	}
}

func TestAnUnknownNamespaceIsAnErrorThatNamesTheKnown(t *testing.T) {
	ns := testutil.NewNamespace(t)
	for _, name := range []string{"no-such-jail", "/no/such/file", ""} {
		_, err := OpenNamespace(name)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), ns.Name) {
			t.Errorf("OpenNamespace(%q): %v", name, err)
		}
	}
}

func TestAnUnknownProcessIsAnError(t *testing.T) {
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := OpenPID(pid); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenPID(%d): %v", pid, err)
		}
	}
}

func TestAFileThatIsNoNetworkNamespaceIsAnError(t *testing.T) {
	leftover := filepath.Join(t.TempDir(), "leftover")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{leftover, "/proc/self/ns/mnt", "/dev/null", t.TempDir()} {
		if _, err := OpenNamespace(path); err == nil || !strings.Contains(err.Error(), "is not a network namespace") {
			t.Errorf("OpenNamespace(%q): %v", path, err)
		}
	}
}

func mustOpen(t *testing.T, nameOrPath string) *Jail {
	t.Helper()
	j, err := OpenNamespace(nameOrPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}
