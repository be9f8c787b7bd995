package jailconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// readable is more than enough time for any input that a fuzzer makes; what
// takes longer grows out of proportion.
const readable = 20 * time.Second

// checked uses all of what was read, as commands do.
func checked(t *testing.T, c *Config, err error, start time.Time) {
	t.Helper()
	var errs Errors
	switch {
	case err != nil && !errors.As(err, &errs):
		t.Fatalf("error without a place: %v", err)
	case err != nil && (c != nil || len(errs) == 0 || len(errs) > 2*maxErrors):
		t.Fatalf("%d errors, config %v", len(errs), c)
	case err == nil:
		c.Check()
		c.Order(nil)
		for _, j := range c.Jails {
			if badName(j.Name) != "" || isWild(j.Name) {
				t.Fatalf("a jail is called %q", j.Name)
			}
			j.Addresses()
			j.AllowsBPF(c.Rulesets)
		}
	}
	if took := time.Since(start); took > readable {
		t.Fatalf("it took %v", took)
	}
}

func seeds(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 4 {
		f.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Add(`$a = "x$b"; $b = $a; "*.y" { allow { mount; } } z.y { path = '\x4'"${name}"; }`)
	f.Add(`.include "jail.conf", "x*"; a { b { c; } }`)
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		files := memory{"/etc/jail.conf": text, "/etc/x.conf": text, "/etc/y.conf": "persist;"}
		c, err := files.parse(text)
		checked(t, c, err, start)
	})
}

func FuzzParseRC(f *testing.F) {
	seeds(f)
	f.Add("jail_list='a b'\njail_a_rootdir=/${jail_x:-y}\njail_a_hostname=$z\njail_a_ip='lo|1.2.3.4,::1'\njail_a_flags='-U'\njail_a_parameters='x=y;'")
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		c, err := memory{"/etc/jail.conf": "b {}"}.parseRC(text)
		checked(t, c, err, start)
	})
}

func FuzzRulesets(f *testing.F) {
	seeds(f)
	f.Add("[a=6]\nadd include 7\n[b=7]\nadd include $a\nadd path [ unhide")
	f.Fuzz(func(t *testing.T, text string) {
		sets, err := ParseRulesets("devfs.rules", strings.NewReader(text))
		if err == nil {
			for n := range 10 {
				sets.UnhidesBPF(string(rune('0' + n)))
			}
		}
	})
}
