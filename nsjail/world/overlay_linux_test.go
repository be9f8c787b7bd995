package world_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

func TestAnOverlayIsAWorldOfItsOwn(t *testing.T) {
	testutil.NeedRoot(t)
	// What would part or end an option of mount(2) is in the names.
	ready, _ := build(t, builtin(t, "busybox"), world.Options{Target: filepath.Join(t.TempDir(), "a:b,c")})
	jails := filepath.Join(t.TempDir(), "jails,x:y")
	if err := os.Mkdir(jails, 0o755); err != nil {
		t.Fatal(err)
	}
	jail := filepath.Join(jails, "web")
	overlay := func() {
		t.Helper()
		if _, err := world.Overlay(ready, jail); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(jail, syscall.MNT_DETACH) })
	}
	overlay()
	if err := start(t.Context(), jail, "/bin/busybox"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(jail, "etc/own"), []byte("own"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(ready, "etc/own")); !os.IsNotExist(err) {
		t.Errorf("what the jail wrote is in the ready world: %v", err)
	}
	mustHoldOnly(t, jails, ".web.layer", "web")
	if _, err := world.Overlay(ready, jail); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("twice: %v", err)
	}

	if err := syscall.Unmount(jail, 0); err != nil {
		t.Fatal(err)
	}
	overlay()
	if text, err := os.ReadFile(filepath.Join(jail, "etc/own")); string(text) != "own" {
		t.Errorf("the layer was lost: %v", err)
	}
}

func TestAnOverlayIsOfAWorldAlone(t *testing.T) {
	jail := filepath.Join(t.TempDir(), "web")
	if _, err := world.Overlay(t.TempDir(), jail); err == nil || !strings.Contains(err.Error(), "is no world: build one there") {
		t.Error(err)
	}
	mustHoldOnly(t, filepath.Dir(jail))
}
