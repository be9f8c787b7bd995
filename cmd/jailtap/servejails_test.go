package main

import (
	"strings"
	"testing"

	"jailtap/bpf"
)

func TestAFileOfJailsSaysWhatItMeans(t *testing.T) {
	f, err := readJails(write(t, `
# two jails
jails:
- name: web.1
  match: {cgroup: /system.slice/web.service, uid: 0, netns: web}
  addresses: [10.0.0.1, 'fd00::/64']
  netns: web
  policy: classic
  vlan: 7,9
  interfaces: [eth0, any]
  limits: {captives: 8, ring: 1048576, instructions: 64, rate: 0.5}
- name: db
  match: {uid: 1001}
  addresses: [10.0.0.2]
`))
	if err != nil {
		t.Fatal(err)
	}
	web, db := f.Jails[0], f.Jails[1]
	if len(f.Jails) != 2 || len(web.fixed) != 2 || web.fixed[1].String() != "fd00::/64" || web.policy != bpf.Classic || len(web.vlans.IDs) != 2 ||
		web.Interfaces[1] != "any" || *web.Match.UID != 0 || web.Limits.broker().RingBytes != 1<<20 || web.Limits.broker().Rate != 0.5 {
		t.Errorf("%+v", web)
	}
	if db.policy != bpf.Full || !db.vlans.None() || db.Match.Cgroup != "" {
		t.Errorf("%+v", db)
	}
}

func TestAMistakeInAFileOfJailsIsOneLineThatSaysWhere(t *testing.T) {
	const begin = "jails:\n- name: web\n  match: {uid: 1}\n  addresses: [10.0.0.1]\n"
	for text, words := range map[string]string{
		"":                                   "has no jails",
		"jails: []":                          "has no jails",
		"jails:\n-":                          "jail 1 is empty",
		begin + "  adresses: [10.0.0.2]":     `:5:3: unknown field "adresses"`,
		begin + "  vlan: none\n  vlan: any":  ":6:3:",
		begin + "  limits: {captives: many}": ":5:",
		begin + "  policy: most":             `jail 1, "web": unknown policy "most"`,
		begin + "  vlan: 5000":               `bad VLAN "5000"`,
		begin + "  limits: {ring: -1}":       "limits are not negative",
		begin + begin[len("jails:\n"):]:      `two jails "web"`,
		"jails: [{name: web":                 ":1:",
		"jails: [{name: a/b, match: {uid: 1}, addresses: [10.0.0.1]}]":                             "a name has up to 48 letters",
		"jails: [{name: " + strings.Repeat("x", 49) + ", match: {uid: 1}, addresses: [10.0.0.1]}]": "a name has up to 48 letters",
		"jails: [{name: web, addresses: [10.0.0.1]}]":                                              "match says by what",
		"jails: [{name: web, match: {uid: -1}, addresses: [10.0.0.1]}]":                            ":1:",
		"jails: [{name: web, match: {cgroup: web}, addresses: [10.0.0.1]}]":                        `bad cgroup "web"`,
		"jails: [{name: web, match: {uid: 1}}]":                                                    "no scope",
		"jails: [{name: web, match: {uid: 1}, addresses: [10.0.0.1/8]}]":                           "10.0.0.1 is meant",
	} {
		name := write(t, text)
		_, err := readJails(name)
		if err == nil || !strings.Contains(err.Error(), words) || !strings.HasPrefix(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v; want one line with %q", text, err, words)
		}
	}
}
