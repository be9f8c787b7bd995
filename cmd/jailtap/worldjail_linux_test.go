//go:build amd64 || arm64

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAJailWithoutARootGetsOneOfItsWorld(t *testing.T) {
	h := newJailHost(t)
	root := filepath.Join(t.TempDir(), "web")
	create := []string{"jail", "-c", "name=" + h.name, "path=" + root, "world=busybox", "vnet", "persist"}
	if made := h.jailtap(create...).mustSucceed(t); !strings.Contains(made.stderr, root+": made of the profile busybox") {
		t.Errorf("%+v", made)
	}
	if in := h.jailtap("jexec", h.name, "/bin/sh", "-c", "id -u; echo mine >/etc/motd").mustSucceed(t); in.stdout != "0\n" {
		t.Errorf("%+v", in)
	}
	h.jailtap("jail", "-r", h.name).mustSucceed(t)

	// What is there is the jail's, whatever the profile.
	create[4] = "world=minimal"
	if again := h.jailtap(create...).mustSucceed(t); strings.Contains(again.stderr, "made of") {
		t.Errorf("%+v", again)
	}
	if in := h.jailtap("jexec", h.name, "/bin/cat", "/etc/motd").mustSucceed(t); in.stdout != "mine\n" {
		t.Errorf("%+v", in)
	}
	h.jailtap("jail", "-r", h.name).mustSucceed(t)
}

func TestAJailOfAConfigurationGetsItsWorld(t *testing.T) {
	h := newJailHost(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "jail.conf")
	text := "path = \"" + dir + "/$name\"; world = busybox; persist;\n" + h.name + " { vnet; }\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if check := h.jailtap("jail", "check", "-f", file).mustSucceed(t); !strings.Contains(check.stdout, "a profile of jailtap world build") {
		t.Errorf("%+v", check)
	}
	h.jailtap("jail", "-c", "-f", file, h.name).mustSucceed(t)
	h.jailtap("jexec", h.name, "/bin/busybox", "true").mustSucceed(t)
	h.jailtap("jail", "-r", h.name).mustSucceed(t)
}

func TestAWorldThatCannotBeMadeMakesNoJail(t *testing.T) {
	h := newJailHost(t)
	dir := t.TempDir()
	for words, args := range map[string][]string{
		`unknown profile "maximal"`: {"path=" + dir + "/web", "world=maximal"},
		"want path=DIR":             {"world=busybox"},
		"no such file":              {"path=" + dir + "/none/web", "world=busybox"},
	} {
		r := h.jailtap(append([]string{"jail", "-c", "name=" + h.name, "vnet", "persist"}, args...)...)
		if r.status == 0 || !strings.Contains(r.stderr, words) || !strings.Contains(r.stderr, h.name) {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if list := h.jailtap("jls", "-n", "name").mustSucceed(t).stdout; strings.Contains(list, h.name) {
		t.Errorf("jls: %s", list)
	}
}
