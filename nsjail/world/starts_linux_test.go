package world_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

func TestEveryBinaryOfEveryProfileStarts(t *testing.T) {
	testutil.NeedRoot(t)
	for _, name := range world.BuiltinNames() {
		t.Run(name, func(t *testing.T) {
			dir, _ := build(t, builtin(t, name), world.Options{Commands: commands(t)})
			if problems, err := world.Check(t.Context(), dir); err != nil || len(problems) > 0 {
				t.Errorf("check: %v, %v", problems, err)
			}
			programs := programsIn(t, dir)
			if len(programs) < 6 {
				t.Fatalf("there are %v only", programs)
			}
			atOnce(programs, func(program string) {
				if err := start(t.Context(), dir, program); err != nil {
					t.Errorf("%s: %v", program, err)
				}
			})
		})
	}
}

// programsIn are the paths of all that can be executed by its name.
func programsIn(t *testing.T, dir string) (programs []string) {
	t.Helper()
	entries, err := world.List(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch parent, _ := filepath.Split(e.Path); parent {
		case "usr/bin/", "usr/sbin/", "usr/local/bin/", "bin/", "sbin/":
			if isLink := e.Mode&fs.ModeSymlink != 0; isLink || e.Mode.IsRegular() && e.Mode&0o111 != 0 {
				programs = append(programs, "/"+e.Path)
			}
		}
	}
	return programs
}

func atOnce(list []string, do func(string)) {
	var group sync.WaitGroup
	places := make(chan struct{}, 8)
	for _, item := range list {
		places <- struct{}{}
		group.Go(func() {
			do(item)
			<-places
		})
	}
	group.Wait()
}

// start starts a program in a root, with nothing of the system around it but /proc, where
// loaders find out what $ORIGIN is. What the program thinks of --help does not matter, as
// long as it is the program that says so.
func start(ctx context.Context, root, program string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child",
		"--root", root, "--mount-proc", program, "--help")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"}
	out, err := cmd.CombinedOutput()
	exit, exited := err.(*exec.ExitError)
	switch {
	case err != nil && !exited:
		return err
	case exited && !isOwnStatus(exit.ExitCode()), strings.Contains(string(out), "error while loading"):
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// isOwnStatus reports whether a program has ended by itself: not by a signal, and not by
// being none (126, 127).
func isOwnStatus(status int) bool { return status >= 0 && status < 126 || status == 255 }

func TestTheMinimalWorldIsLessThan10Megabytes(t *testing.T) {
	_, r := build(t, builtin(t, "minimal"), world.Options{})
	if r.Bytes >= 10e6 || r.Bytes < 1e6 {
		t.Errorf("%d bytes", r.Bytes)
	}
}

// A program that finds its library by $ORIGIN is one that ldd would have to run.
func TestLibrariesAreFoundAsTheLoaderFindsThem(t *testing.T) {
	testutil.NeedRoot(t)
	system := filepath.Join(t.TempDir(), "app")
	compile(t, system, "lib/inner/libinner.so", "int inner(void) { return 42; }", "-shared", "-fPIC", "-Wl,-soname,libinner.so")
	compile(t, system, "lib/libouter.so", "int inner(void); int outer(void) { return inner(); }", "-shared", "-fPIC", "-Wl,-soname,libouter.so",
		"-L"+filepath.Join(system, "lib/inner"), "-linner", "-Wl,-rpath,$ORIGIN/inner")
	compile(t, system, "bin/program", "int outer(void); int main(void) { return outer() != 42; }",
		"-L"+filepath.Join(system, "lib"), "-louter", "-Wl,-rpath,$ORIGIN/../lib", "-Wl,--allow-shlib-undefined")
	program := filepath.Join(system, "bin/program")
	dir, _ := build(t, world.Profile{Bins: []string{program}}, world.Options{})
	if err := start(t.Context(), dir, program); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, system, "lib/inner/libinner.so")); err != nil {
		t.Fatal(err)
	}
	problems, err := world.Check(t.Context(), dir)
	if err != nil || len(problems) == 0 || !strings.Contains(fmt.Sprint(problems), "library libinner.so is not there") {
		t.Errorf("check without a library: %v, %v", problems, err)
	}
}

func compile(t *testing.T, dir, name, source string, flags ...string) {
	t.Helper()
	to := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	code := filepath.Join(t.TempDir(), "code.c")
	if err := os.WriteFile(code, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("gcc", append([]string{"-o", to, code}, flags...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
}
