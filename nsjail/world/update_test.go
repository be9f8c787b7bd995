//go:build unix

package world_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jailtap/nsjail/world"
)

// A changed system, and a jail that has files of its own.
type updating struct {
	t            *testing.T
	system, jail string
	p            world.Profile
}

func newUpdating(t *testing.T) updating {
	t.Helper()
	root := system(t, map[string]string{"bin/sh": "shell", "bin/cat": "cat", "bin/ls": "ls", "etc/motd": "hello"})
	p := world.Profile{Bins: []string{"sh", "cat", "ls"}, Files: []string{"/etc/motd"}}
	jail, _ := build(t, p, world.Options{System: root})
	u := updating{t, root, jail, p}
	u.write(root, "bin/cat", "a newer cat")
	u.write(root, "bin/sh", "a newer shell")
	u.write(jail, "bin/sh", "the jail's shell")
	u.write(jail, "etc/motd", "the jail's")
	u.write(jail, "etc/hosts", "the jail's")
	u.write(jail, "srv", "the jail's")
	u.p.Bins = append(u.p.Bins, "new")
	u.write(root, "bin/new", "new")
	return u
}

// write changes a file, and its time, by a rename as package managers do.
func (u updating) write(root, name, text string) {
	u.t.Helper()
	file := filepath.Join(root, name)
	later := time.Now().Add(time.Hour)
	err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o755), os.Chtimes(file+".new", later, later), os.Rename(file+".new", file))
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u updating) mustHave(name, want string) {
	u.t.Helper()
	if text, err := os.ReadFile(filepath.Join(u.jail, name)); err != nil || string(text) != want {
		u.t.Errorf("%s: %q, %v, want %q", name, text, err, want)
	}
}

func (u updating) diff() []string {
	u.t.Helper()
	changes, err := world.Diff(u.t.Context(), u.p, world.Options{System: u.system, Target: u.jail})
	if err != nil {
		u.t.Fatal(err)
	}
	var lines []string
	for _, c := range changes {
		lines = append(lines, string(c.What)+" "+c.Path)
	}
	return lines
}

func TestAnUpdateBringsWhatChangedAndKeepsWhatIsTheJails(t *testing.T) {
	u := newUpdating(t)
	if got, want := u.diff(), []string{"changed /bin/cat", "added /bin/new", "own /bin/sh", "own /etc/motd", "own /srv"}; !slices.Equal(got, want) {
		t.Errorf("diff %q, want %q", got, want)
	}
	_, r := build(t, u.p, world.Options{System: u.system, Target: u.jail, Update: true})
	if want := []string{"/bin/cat", "/bin/new"}; !slices.Equal(r.Changed, want) {
		t.Errorf("changed %q, want %q", r.Changed, want)
	}
	if want := []string{"/bin/sh", "/etc/motd"}; !slices.Equal(r.Kept, want) {
		t.Errorf("kept %q, want %q", r.Kept, want)
	}
	u.mustHave("bin/cat", "a newer cat")
	u.mustHave("bin/new", "new")
	u.mustHave("bin/sh", "the jail's shell")
	u.mustHave("etc/motd", "the jail's")
	u.mustHave("etc/hosts", "the jail's")
	u.mustHave("srv", "the jail's")
	if got, want := u.diff(), []string{"own /bin/sh", "own /etc/motd", "own /srv"}; !slices.Equal(got, want) {
		t.Errorf("diff behind the update %q, want %q", got, want)
	}
	mustHoldOnly(t, filepath.Dir(u.jail), ".world.world.json", "world")
}

// What is mapped or runs goes on with its bytes.
func TestAnUpdateLeavesOpenFilesAsTheyWere(t *testing.T) {
	u := newUpdating(t)
	open, err := os.Open(filepath.Join(u.jail, "bin/cat"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	build(t, u.p, world.Options{System: u.system, Target: u.jail, Update: true})
	text := make([]byte, 100)
	if n, _ := open.Read(text); string(text[:n]) != "cat" {
		t.Errorf("%q", text[:n])
	}
}

func TestAWorldRemembersItsProfile(t *testing.T) {
	u := newUpdating(t)
	p, err := world.Recorded(u.jail)
	if err != nil || !slices.Equal(p.Bins, []string{"sh", "cat", "ls"}) {
		t.Errorf("%q, %v", p.Bins, err)
	}
	if _, err := world.Recorded(u.system); err == nil || !strings.Contains(err.Error(), "say with --profile what it shall have") {
		t.Error(err)
	}
}

func TestTwoWorldsAreComparedByWhatIsInThem(t *testing.T) {
	same := time.Unix(1e9, 0)
	first := system(t, map[string]string{"bin/a": "1", "bin/b": "2", "bin/gone": "3", "link": "-> a", "bin/touched": "4"})
	second := system(t, map[string]string{"bin/a": "1", "bin/b": "5", "bin/here": "3", "link": "-> b", "bin/touched": "4"})
	if err := os.Chtimes(filepath.Join(first, "bin/touched"), same, same); err != nil {
		t.Fatal(err)
	}
	changes, err := world.Compare(t.Context(), first, second)
	want := []world.Change{{world.Changed, "/bin/b"}, {world.Removed, "/bin/gone"}, {world.Added, "/bin/here"}, {world.Changed, "/link"}}
	if err != nil || !slices.Equal(changes, want) {
		t.Errorf("%v, %v, want %v", changes, err, want)
	}
}

func TestACheckFindsWhatDoesNotWork(t *testing.T) {
	root := system(t, map[string]string{
		"bin/sh": "#!/bin/busybox sh\n", "bin/env": "env", "bin/snake": "#!/bin/env python3\n", "bin/fine": "#!/bin/env sh\n",
		"bin/gone": "-> nowhere", "bin/loop": "-> loop", "var/run": "-> /run/thing", "bin/out": "-> ../../../../../../../../../bin/sh",
		"bin/elf": "\x7fELF nonsense",
	})
	problems, err := world.Check(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	want := []string{
		"/bin/elf: broken ELF file:", "/bin/gone: link to nowhere, which is not there", "/bin/loop: link to loop, which is not there",
		"/bin/sh: its interpreter /bin/busybox is not there", "/bin/snake: its interpreter python3 is not there",
	}
	if !slices.EqualFunc(lines, want, strings.HasPrefix) {
		t.Errorf("%q\nwant %q", lines, want)
	}
}
