//go:build amd64 || arm64

package jail

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAJailThatCannotBeMadeLeavesNothing(t *testing.T) {
	y := newYard(t)
	y.must(Spec{Name: "taken", Path: tree(t), JID: 7})
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "", 0o644)
	good := tree(t)
	for want, spec := range map[string]Spec{
		"there is no such directory":             {Name: "a", Path: "/nowhere/at/all"},
		"is not a directory":                     {Name: "a", Path: file},
		"no path":                                {Name: "a"},
		"the host's own root":                    {Name: "a", Path: "/"},
		"bad name":                               {Name: "a b", Path: good},
		"a number is the jail's jid":             {Name: "12", Path: good},
		"exists already: it has jid 7":           {Name: "taken", Path: good},
		"jid 7 is that of jail taken":            {Name: "a", Path: good, JID: 7},
		"no such file or directory":              {Name: "a", Path: good, Mounts: []Mount{{Type: "nullfs", Source: "/nowhere", Target: "tmp"}}},
		"mount on nowhere":                       {Name: "a", Path: good, Mounts: []Mount{{Type: "tmpfs", Target: "nowhere"}}},
		"a jail has no ext4":                     {Name: "a", Path: good, Mounts: []Mount{{Type: "ext4", Target: "tmp"}}},
		"unknown options sync":                   {Name: "a", Path: good, Mounts: []Mount{{Type: "nullfs", Source: "/tmp", Target: "tmp", Options: []string{"sync"}}}},
		`exec.start: "echo no; false": exit`:     {Name: "a", Path: good, Commands: Commands{Start: []string{"true", "echo no; false"}}},
		"its output ends with: one | two":        {Name: "a", Path: good, Commands: Commands{Start: []string{"echo one; echo two >&2; false"}}},
		`exec.prestart: "exit 3": exit status 3`: {Name: "a", Path: good, Commands: Commands{Prestart: []string{"exit 3"}}},
		`exec.poststart: "exit 4"`:               {Name: "a", Path: good, Commands: Commands{Poststart: []string{"exit 4"}}},
		"none: no such file":                     {Name: "a", Path: good, Commands: Commands{Command: []string{"none"}}},
		"unknown user":                           {Name: "a", Path: good, Commands: Commands{Start: []string{"true"}, User: "nobody"}},
		"it did not end within 300ms (exec.timeout); load: ": {Name: "a", Path: good,
			Commands: Commands{Start: []string{"sleep 1000"}, Timeout: 300 * time.Millisecond}},
	} {
		spec.Persist = true
		if spec.Network == "" {
			spec.Network = NoNetwork
		}
		_, err := y.Create(t.Context(), spec, Starter{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if list, _ := y.List(); len(list) != 1 {
			t.Fatalf("%s: there are %d jails", want, len(list))
		}
	}
}

func TestCommandsRunInTheirOrderAndPlaces(t *testing.T) {
	y := newYard(t)
	path := tree(t)
	log := filepath.Join(path, "tmp/log")
	host := func(word string) []string { return []string{"echo " + word + " $JAIL >> " + log} }
	inside := func(word string) []string {
		return []string{"echo " + word + " $(hostname) >> /tmp/log; echo printed " + word}
	}
	spec := Spec{Name: "a", Path: path, Network: NoNetwork, Persist: true, Hostname: "in", Commands: Commands{
		Prepare: host("prepare"), Prestart: host("prestart"), Created: host("created"), Poststart: host("poststart"),
		Prestop: host("prestop"), Poststop: host("poststop"), Release: host("release"),
		Start: inside("start"), Stop: inside("stop"), Command: []string{"sh", "-c", "echo command $USER >> /tmp/log; echo to the terminal"},
		Clean: true, User: "web",
	}}
	if err := os.Chmod(filepath.Join(path, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, log, "", 0o666)
	os.Chmod(log, 0o666)
	read, terminal, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.Create(t.Context(), spec, Starter{Stdout: terminal}); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	y.remove("a")
	got, _ := os.ReadFile(log)
	if want := "prepare a\nprestart a\ncreated a\nstart in\ncommand web\npoststart a\nprestop a\nstop in\npoststop a\nrelease a\n"; string(got) != want {
		t.Errorf("got\n%s", got)
	}
	console, _ := os.ReadFile(filepath.Join(path, consoleLog))
	if string(console) != "printed start\nprinted stop\n" {
		t.Errorf("console log: %q", console)
	}
	var printed bytes.Buffer
	printed.ReadFrom(read)
	if printed.String() != "to the terminal\n" {
		t.Errorf("%q", printed.String())
	}
}

func TestAJailEndsWithItsLastProcessUnlessItPersists(t *testing.T) {
	y := newYard(t)
	spec := Spec{Name: "a", Path: tree(t), Network: NoNetwork, Commands: Commands{Command: []string{"sh", "-c", "exit 7"}}}
	_, err := y.Create(t.Context(), spec, Starter{})
	if e, ok := errors.AsType[*StatusError](err); !ok || e.Status != 7 || e.Param != "command" {
		t.Errorf("%v", err)
	}
	// A daemon holds it, and ends.
	spec.Commands = Commands{Start: []string{"(cat /tmp/end; true) >/dev/null 2>&1 &"}}
	fifo := filepath.Join(spec.Path, "tmp/end")
	if err := mkfifo(fifo); err != nil {
		t.Fatal(err)
	}
	j, err := y.Create(t.Context(), spec, Starter{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(j.Processes()); n < 2 {
		t.Errorf("%d processes", n)
	}
	write(t, fifo, "", 0) // opening is enough
	if !gone(j.PID()) {
		t.Error("the jail outlived its last process")
	}
	if list, err := y.List(); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	if err := y.Repair(); err != nil {
		t.Error(err)
	}
}

func TestOfManyWhoMakeOneNameAtOnceOneSucceeds(t *testing.T) {
	y := newYard(t)
	spec := Spec{Name: "a", Path: tree(t), Network: NoNetwork, Persist: true}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = y.Create(t.Context(), spec, Starter{}) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, ErrExists) {
			t.Errorf("%v", err)
		}
	}
	if list, _ := y.List(); made != 1 || len(list) != 1 {
		t.Errorf("%d were made, %d are there", made, len(list))
	}
	y.remove("a")
}

func TestMountsShowWhatTheyShould(t *testing.T) {
	y := newYard(t)
	shared := t.TempDir()
	write(t, filepath.Join(shared, "file"), "text", 0o644)
	j := y.must(Spec{Name: "a", Path: tree(t), Mounts: []Mount{
		{Type: "nullfs", Source: shared, Target: "home", Options: []string{"ro"}},
		{Type: "tmpfs", Target: "/tmp", Options: []string{"size=1m", "mode=1777"}},
	}})
	j.says(t, "cat /home/file", "text")
	j.fails(t, "echo x > /home/file")
	j.fails(t, "dd if=/dev/zero of=/tmp/big bs=1k count=2000")
	j.says(t, "rm /tmp/big; echo x > /tmp/small; cat /tmp/small; stat -c %a /tmp", "x\n1777")
}

func TestALimitThatNoControllerCarriesOutIsAnErrorThatNamesIt(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "cgroup.controllers"), "cpu pids\n", 0o644)
	err := enable(dir, limit{"limit.memory", "memory", "memory.max", "1"})
	if err == nil || !strings.Contains(err.Error(), `limit.memory: the cgroup2 hierarchy at `+dir+` has no controller "memory" (it has: cpu pids)`) {
		t.Errorf("%v", err)
	}
	if err := enable(dir, limit{"limit.pids", "pids", "pids.max", "1"}); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); string(text) != "+pids" {
		t.Errorf("%q", text)
	}
}
