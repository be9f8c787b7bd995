package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"jailtap/bpf"
	"jailtap/compat/conform"
	"jailtap/compat/conform/kernel"
	"jailtap/compat/vectors"
	"jailtap/internal/testutil"
)

func open(t *testing.T, name string) conform.Engine {
	t.Helper()
	e, err := kernel.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// some is every nth public vector.
func some(t *testing.T, n int) *vectors.Set {
	t.Helper()
	set, err := vectors.Public()
	if err != nil {
		t.Fatal(err)
	}
	set.Interp, set.Scope, set.Kernel = nth(n, set.Interp), nth(n, set.Scope), nil
	return &set
}

func nth[V any](n int, all []V) (some []V) {
	for i := 0; i < len(all); i += n {
		some = append(some, all[i])
	}
	return some
}

func TestThisKernelPassesTheVectors(t *testing.T) {
	testutil.NeedRoot(t)
	for _, c := range []struct {
		name            string
		n               int // of the vectors, every nth
		passed, skipped int
	}{
		{"cbpf", 3, 2718, 126},
		{"native", 20, 415, 18},
		{"ebpf", 5, 1318, 391},
		{"wire", 20, 312, 121},
		{"hub", 20, 222, 211},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t, c.name)
			if e.Name() != c.name || e.Mode() != conform.Linux {
				t.Errorf("it is %s, %v", e.Name(), e.Mode())
			}
			outcomes, err := conform.Run(t.Context(), some(t, c.n), []conform.Engine{e}, nil)
			if err != nil {
				t.Fatal(err)
			}
			counts := map[conform.Status]int{}
			for _, o := range outcomes {
				counts[o.Status]++
				if o.Status == conform.Failed {
					t.Errorf("%+v", o)
				}
			}
			if counts[conform.Passed] != c.passed || counts[conform.Skipped] != c.skipped {
				t.Errorf("%v, want %d passed and %d skipped", counts, c.passed, c.skipped)
			}
		})
	}
}

func TestTheWireIsTakenAway(t *testing.T) {
	testutil.NeedRoot(t)
	e, err := kernel.Open("wire")
	if err != nil {
		t.Fatal(err)
	}
	ours := fmt.Sprintf("/run/netns/jtc-%d-*", os.Getpid())
	if names, _ := filepath.Glob(ours); len(names) == 0 {
		t.Error("there is none")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if names, _ := filepath.Glob(ours); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestThisKernelTakesWhatTheTableSays(t *testing.T) {
	e := open(t, "cbpf")
	for _, a := range conform.Attaches() {
		_, err := e.Ask(conform.Filter{Program: a.Program}, []bpf.Packet{{Data: []byte{0x45}, WireLen: 1}})
		if err != nil && !errors.Is(err, conform.ErrRefused) {
			t.Fatal(err)
		}
		if (err == nil) != a.Linux {
			t.Errorf("%s: %v, want taken: %v", a.What, err, a.Linux)
		}
	}
}

func TestAnEngineOfAnotherSystemIsNotThere(t *testing.T) {
	if _, err := kernel.Open("quantum"); err == nil {
		t.Error("engine quantum exists")
	}
}
