package world_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"jailtap/nsjail/world"
)

func TestBadProfilesAreRefused(t *testing.T) {
	for text, words := range map[string]string{
		"":                                     "empty profile",
		"bins: [sh]\nbin: [ls]":                `unknown field "bin"`,
		"bins: !0\n0":                          "bad YAML",
		"bins: sh":                             "string was used where sequence is expected",
		"bins: [sh]\n---\nbins: [ls]":          "more than one document",
		"bins: [bin/sh]":                       `bad binary "bin/sh": give a name or an absolute path`,
		"bins: ['?']":                          `bad binary "?"`,
		"files: [etc/motd]":                    `bad file "etc/motd": the source is an absolute path`,
		"files: ['/etc/motd:motd']":            "the place behind the colon is an absolute path",
		"files: ['/etc/motd:/..']":             "the place behind the colon is an absolute path",
		"files: ['/etc/*:/etc/all']":           "a pattern has no single place to go to",
		"files: ['/etc/[a']":                   "syntax error in pattern",
		"users: [{name: Web}]":                 `bad user name "Web"`,
		"users: [{name: 'a:b'}]":               `bad user name "a:b"`,
		"users: [{name: web, uid: -1}]":        "bad uid -1 of user web",
		"users: [{name: web, home: home}]":     `bad path "home" of user web`,
		"users: [{name: web, shell: /a:b}]":    `bad path "/a:b" of user web`,
		`users: [{name: web, keys: ["a\nb"]}]`: "bad key of user web: one line each",
		"pam: [../x]":                          `bad name "../x"`,
	} {
		_, err := world.ReadProfile(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want one line with %q", text, err, words)
		}
	}
}

func TestUnknownProfilesAreToldFromThoseThatThereAre(t *testing.T) {
	_, err := world.Builtin("maximal")
	if err == nil || err.Error() != `unknown profile "maximal": built in are busybox, capture, interactive, minimal, sshd` {
		t.Error(err)
	}
}

// What is read of a profile breaks no line of passwd(5), and is the same profile when it
// was written, as JSON, which is YAML, and read again.
func FuzzReadProfile(f *testing.F) {
	for _, name := range world.BuiltinNames() {
		p, err := world.Builtin(name)
		if err != nil {
			f.Fatal(err)
		}
		text, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("bins: [sh, 'less?']\nfiles: ['/etc/*.conf', '/a:/b']\nusers: [{name: web, uid: 5, home: /w, keys: ['a b']}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := world.ReadProfile(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, u := range p.Users {
			if strings.ContainsAny(u.Name+u.Home+u.Shell, ":\n") {
				t.Errorf("a user that would break passwd: %+v", u)
			}
		}
		written, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := world.ReadProfile(bytes.NewReader(written))
		if rewritten, _ := json.Marshal(again); err != nil || !bytes.Equal(rewritten, written) {
			t.Errorf("%s became %s: %v", written, rewritten, err)
		}
	})
}
