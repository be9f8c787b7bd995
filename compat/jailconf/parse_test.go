package jailconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// flat is a configuration in a form that is easy to compare: the jails, and
// below them their parameters without "name".
func flat(c *Config) string {
	var b strings.Builder
	for _, j := range c.Jails {
		fmt.Fprintf(&b, "%s:", j.Name)
		for _, p := range j.Params {
			switch {
			case p.Name == "name" || p.Name == "jid":
			case p.Values == nil:
				fmt.Fprintf(&b, " %s", p.Name)
			default:
				fmt.Fprintf(&b, " %s=%s", p.Name, strings.Join(p.Values, "|"))
			}
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// memory is files that are in memory only.
type memory map[string]string

func (m memory) open(path string) (io.ReadCloser, error) {
	text, ok := m[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func (m memory) glob(pattern string) ([]string, error) {
	var list []string
	for path := range m {
		if strings.HasPrefix(path, strings.TrimSuffix(pattern, "*.conf")) && path != "/etc/jail.conf" {
			list = append(list, path)
		}
	}
	slices.Sort(list)
	return list, nil
}

func (m memory) parse(text string) (*Config, error) {
	return newParser(m.open, m.glob).config("/etc/jail.conf", strings.NewReader(text))
}

func TestJailConfsMeanWhatTheManualSays(t *testing.T) {
	files := memory{
		"/etc/jail.conf.d/a.conf": "a { path = /a; }",
		"/etc/jail.conf.d/b.conf": `b { path = "/b"; } .include "../deep.conf";`,
		"/etc/deep.conf":          "$where = /deep;",
	}
	for _, test := range []struct{ name, text, want string }{
		{"a flag", "a { persist; }", "a: persist"},
		{"a value without =", "a { path /a; }", "a: path=/a"},
		{"a list", "a { depend = b, c ,d; }", "a: depend=b|c|d"},
		{"appending", "a { exec.start = x; exec.start += y, z; }", "a: exec.start=x|y|z"},
		{"appending to a wildcard's", "exec.start = x; a { exec.start += y; } b {}", "a: exec.start=x|y\nb: exec.start=x"},
		{"replacing clears", "exec.start = x; a { exec.start; }", "a: exec.start"},
		{"the no of a flag replaces it", "a { persist; nopersist; }", "a: nopersist"},
		{"the no of a part", "mount.devfs; a { mount.nodevfs; }", "a: mount.nodevfs"},
		{"a wildcard above", "* { path = /w; } a { path = /a; }", "a: path=/a"},
		{"a wildcard below", "a { path = /a; } * { path = /w; }", "a: path=/w"},
		{"a wildcard for children", `"web.*" { persist; } web {} web.x {} web.x.y {} other.x {}`,
			"web:\nweb.x: persist\nweb.x.y: persist\nother.x:"},
		{"a wildcard without quotes", "web.* { persist; } web.x {}", "web.x: persist"},
		{"a wildcard in the middle", `"*.x" { persist; } a.x {} a.b.x {}`, "a.x: persist\na.b.x:"},
		{"variables", `$root = /j; path = "$root/$name"; a {} b { $root = /k; }`, "a: path=/j/a\nb: path=/k/b"},
		{"variables in braces", `a { host.hostname = h; path = /x/${host.hostname}y; }`, "a: host.hostname=h path=/x/hy"},
		{"variables that come later", `a { path = $p; $p = "$q"; $q = 1; }`, "a: path=1"},
		{"a variable with a list", "a { $l = x, y; depend = w, $l, z; }", "a: depend=w|x|y|z"},
		{"no variables in single quotes", `a { path = '$name${x}'; }`, "a: path=$name${x}"},
		{"an escaped dollar", `a { path = "\$name"; host.hostname = \$x; }`, "a: path=$name host.hostname=$x"},
		{"a dollar alone", `a { path = "a$ b$1"; }`, "a: path=a$ b$1"},
		{"pieces", `a { path = a"b c"'d'$name\;e; }`, "a: path=ab cda;e"},
		{"escapes", `a { path = "\t\x41\101\n\q\
x"; }`, "a: path=\tAA\nqx"},
		{"an empty string", `a { exec.stop = ""; exec.start = ''; }`, "a: exec.stop= exec.start="},
		{"a quote in the other's", `a { path = "it's"; exec.start = 'say "x"'; }`, `a: path=it's exec.start=say "x"`},
		{"comments", "a { # x {\n // y\n /* z; ** } */ persist /**/ ; path = a/* b */c; }", ""},
		{"a comment ends a string", "a { # x {\n // y\n /* z; ** } */ persist /**/ ; }", "a: persist"},
		{"a slash is text, two are a comment", "a { path = /a/b//c;\n; }", "a: path=/a/b"},
		{"names with hyphens", "my-jail_2 { host.hostname=my-jail; }", "my-jail_2: host.hostname=my-jail"},
		{"a number for a name", "7 { path = /j/$name; }", "7: path=/j/7"},
		{"a number with a name", "7 { name = x; path = /j/$name; }", "7: path=/j/x"},
		{"a name that is said twice", "a { name = \"a\"; jid = 3; path = /$name; }", "a: path=/a"},
		{"text around a variable", "$n = 3; a { ip4.addr = lo1|10.0.0.${n}; }", "a: ip4.addr=lo1|10.0.0.3"},
		{"a jail in two blocks", "a { path = /a; } b {} a { persist; }", "a: path=/a persist\nb:"},
		{"a child in its parent's block", "a { path = /a; b { path = /b; c {} } }", "a: path=/a\na.b: path=/b\na.b.c:"},
		{"parameters in a block", "a { allow { mount; mount { devfs; } raw_sockets = 1; } exec { start += x; } }",
			"a: allow.mount allow.mount.devfs allow.raw_sockets=1 exec.start=x"},
		{"text that is not ASCII", "a { host.hostname = bücher; }", "a: host.hostname=bücher"},
		{"including", `persist; .include "/etc/jail.conf.d/*.conf"; c { path = $where; }`,
			"a: persist path=/a\nb: persist path=/b\nc: persist path=/deep"},
		{"including nothing", `.include "none/*.conf";`, ""},
		{"nothing", " # nothing\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := files.parse(test.text)
			if test.name == "comments" {
				if err == nil { // "a c" are two strings
					t.Fatal("a comment did not end a string")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := flat(c); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestErrorsSayWhereAndWhat(t *testing.T) {
	files := memory{"/etc/loop.conf": `.include "loop.conf";`, "/etc/bad.conf": "a {\n  path ==;\n}"}
	for _, test := range []struct{ text, at, says string }{
		{"a {\n\tpersist\n}", "/etc/jail.conf:3:1", `"}" does not fit: want ; behind persist`},
		{"a { path = ; }", "/etc/jail.conf:1:12", `want a value for path`},
		{"a { path = b", "/etc/jail.conf:1:13", "the file ends: want ; behind path"},
		{"a { persist;", "/etc/jail.conf:1:13", "the file ends inside a, which begins at /etc/jail.conf:1:1: want }"},
		{"a {} }", "/etc/jail.conf:1:6", "} closes nothing"},
		{"= b;", "/etc/jail.conf:1:1", "want the name of a jail"},
		{"a { path = \"x\n}\n", "/etc/jail.conf:1:12", `the string has no end: want "`},
		{"a { path = 'x;\n}\n", "/etc/jail.conf:1:12", "the string has no end: want '"},
		{"a { /* x", "/etc/jail.conf:1:5", "the comment has no end"},
		{`a { path = "${x"; }`, "/etc/jail.conf:1:13", "is not a variable"},
		{`a { path = ${}; }`, "/etc/jail.conf:1:12", "is not a variable"},
		{"a { path =\n  /x/$none; }", "/etc/jail.conf:2:6", "jail a: path: $none is not set"},
		{"a { $x = $y; $y = $x; path = $x; }", "/etc/jail.conf:1:19", "$x contains itself"},
		{"a { $l = 1, 2; path = /$l; }", "/etc/jail.conf:1:24", "$l has 2 values, which cannot stand inside a string"},
		{"a { $path = x; path = y; }", "/etc/jail.conf:1:16", "the variable $path has the name of a parameter"},
		{"a { name = b; }", "/etc/jail.conf:1:5", "cannot be set again"},
		{"web* {}", "/etc/jail.conf:1:1", "a * stands for a whole part"},
		{"'../x' {}", "/etc/jail.conf:1:1", "bad name"},
		{"'a/x' {}", "/etc/jail.conf:1:1", "it has a slash"},
		{"a {} .include nothere;", "/etc/jail.conf:1:6", "/etc/nothere: file does not exist"},
		{".include loop.conf;", "/etc/loop.conf:1:1", "includes itself: /etc/jail.conf -> /etc/loop.conf -> /etc/loop.conf"},
		{".include $x;", "/etc/jail.conf:1:10", ".include has a variable"},
		{"a { .include x; }", "/etc/jail.conf:1:5", ".include is inside a jail"},
		{".include bad.conf;", "/etc/bad.conf:2:9", `"=" does not fit`},
		{"a { allow { nothing { x; } } }", "/etc/jail.conf:1:13", "no parameters begin with allow.nothing"},
		{strings.Repeat("a {", 17) + strings.Repeat("}", 17), "/etc/jail.conf:1:49", "nested deeper than 16"},
	} {
		_, err := files.parse(test.text)
		var errs Errors
		if !errors.As(err, &errs) {
			t.Errorf("%q: got error %v", test.text, err)
			continue
		}
		if got := errs[0].Pos.String(); got != test.at || !strings.Contains(errs[0].Msg, test.says) {
			t.Errorf("%q:\ngot  %v\nwant %s: ...%s", test.text, errs[0], test.at, test.says)
		}
	}
}

func TestAllErrorsAreToldNotTheFirstOnly(t *testing.T) {
	_, err := memory{}.parse("a { path = ; persist; }\nb {\n x = = ; }\n} c { path = /c; }")
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 3 {
		t.Fatalf("got %v, want three errors", err)
	}
	var lines []int
	for _, e := range errs {
		lines = append(lines, e.Pos.Line)
	}
	if !slices.Equal(lines, []int{1, 3, 4}) {
		t.Errorf("errors in lines %v, want 1, 3, 4", lines)
	}
}

// Each of these would take a parser without limits hours, or all memory.
func TestBombsAreRefusedInTime(t *testing.T) {
	doubled := "a { $v0 = xxxxxxxxxxxxxxxx;"
	for i := range 60 {
		doubled += fmt.Sprintf("$v%d = $v%d$v%d;", i+1, i, i)
	}
	lists := "a { $v0 = x, x;"
	for i := range 60 {
		lists += fmt.Sprintf("$v%d = $v%d, $v%d;", i+1, i, i)
	}
	reversed := "a {"
	for i := range 900 {
		reversed += fmt.Sprintf("$v%d = $v%d;", i, i+1)
	}
	var many strings.Builder
	many.WriteString(strings.Repeat("x = yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy;\n", 20000))
	for i := range 50000 {
		fmt.Fprintf(&many, "j%d{}", i)
	}
	for name, text := range map[string]string{
		"doubled strings":          doubled + "path = $v60; }",
		"doubled lists":            lists + "depend = $v60; }",
		"variables in variables":   reversed + "$v900 = x; }",
		"many wildcards and jails": "j{} *{x;}" + many.String(),
		"a file that is too large": strings.Repeat(" ", maxFile+1),
	} {
		start := time.Now()
		if _, err := (memory{}).parse(text); err == nil {
			t.Errorf("%s: no error", name)
		}
		t.Logf("%s: %v", name, time.Since(start))
	}
	if _, err := (memory{}).parse("a {" + strings.Repeat("exec.start += x;", 100_000) + "}"); err != nil {
		t.Error(err) // it is long, but no bomb
	}
}

func TestFilesThatIncludeManyAreStopped(t *testing.T) {
	files := memory{}
	for i := range 20 {
		files[fmt.Sprintf("/etc/%d.conf", i)] = strings.Repeat(fmt.Sprintf(`.include "%d.conf";`, i+1), 2)
	}
	files["/etc/20.conf"] = ""
	if _, err := files.parse(`.include "0.conf";`); err == nil || !strings.Contains(err.Error(), "deeper than 16") {
		t.Errorf("got %v", err)
	}
	wide := memory{"/etc/x.conf": "persist;"}
	if _, err := wide.parse(strings.Repeat(".include x.conf;", maxFiles+1)); err == nil || !strings.Contains(err.Error(), "more to read") {
		t.Errorf("got %v", err)
	}
}

func TestDependenciesComeFirst(t *testing.T) {
	c, err := memory{}.parse("a { depend = c, b; } b {} c { depend = b; } d {}")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ names, want []string }{
		{nil, []string{"b", "c", "a", "d"}},
		{[]string{"*"}, []string{"b", "c", "a", "d"}},
		{[]string{"d", "c"}, []string{"d", "b", "c"}},
		{[]string{"a", "a"}, []string{"b", "c", "a"}},
	} {
		jails, err := c.Order(test.names)
		var got []string
		for _, j := range jails {
			got = append(got, j.Name)
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("Order(%v) = %v, %v, want %v", test.names, got, err, test.want)
		}
	}
	if _, err := c.Order([]string{"x"}); err == nil || err.Error() != `unknown jail "x": the configuration has a, b, c, d` {
		t.Errorf("got %v", err)
	}
}

func TestCircularDependenciesAreAnErrorWithTheChain(t *testing.T) {
	c, err := memory{}.parse("x { depend = a; }\na { depend = b; }\nb { depend = c; }\nc { depend = a; }\nd { depend = gone; }")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Order([]string{"x"})
	if err == nil || err.Error() != "/etc/jail.conf:4:5: jails depend on each other in a circle: a -> b -> c -> a" {
		t.Errorf("got %v", err)
	}
	_, err = c.Order([]string{"d"})
	if err == nil || !strings.Contains(err.Error(), `/etc/jail.conf:5:5: jail d depends on "gone", which is unknown`) {
		t.Errorf("got %v", err)
	}
}

func TestStylesThatPeopleUseAreRead(t *testing.T) {
	for file, want := range map[string]string{
		"handbook.conf": "www: exec.start=/bin/sh /etc/rc exec.stop=/bin/sh /etc/rc.shutdown exec.clean mount.devfs path=/jails/www host.hostname=www.example.org ip4.addr=192.0.2.10 ip6.addr=2001:db8::10\n" +
			"empty: exec.start= exec.stop= exec.clean mount.nodevfs path=/ host.hostname=empty.example.org persist",
		"ez.rc.conf": "mail_example_org: host.hostname=mail.example.org path=/usr/jails/mail.example.org " +
			"ip4.addr=lo1|127.0.1.7/32|em0|192.0.2.25/24 ip6.addr=em0|2001:db8::25/128 allow.raw_sockets=0 exec.clean exec.system_user=root exec.jail_user=root " +
			"exec.start=/bin/sh /etc/rc mount.devfs mount.procfs allow.set_hostname=0 allow.sysvipc=0 enforce_statfs=2 jail_mail_example_org_cpuset=0-1",
	} {
		c, err := Read("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if got := flat(c); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", file, got, want)
		}
	}
	c, err := Read("testdata/vnet.conf")
	if err != nil {
		t.Fatal(err)
	}
	j := c.Jails[0]
	if on, err := j.AllowsBPF(c.Rulesets); !on || err != nil || !j.IsVNET() {
		t.Errorf("allow.bpf %v, %v, vnet %v", on, err, j.IsVNET())
	}
	if got := j.Strings("exec.prestart"); len(got) != 2 || got[1] != `ifconfig e0a_cache1 description "vnet of cache1"` {
		t.Errorf("exec.prestart %q", got)
	}
	for _, f := range c.Check() {
		if f.Wrong() {
			t.Errorf("%+v", f)
		}
	}
}

func TestJailsOutOfATemplateHaveTheirOwnValues(t *testing.T) {
	c, err := Read("testdata/templates.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range c.Check() {
		if f.Wrong() {
			t.Errorf("%+v", f)
		}
	}
	jails, err := c.Order([]string{"app-1"})
	if err != nil || len(jails) != 3 || jails[0].Name != "dns" || jails[1].Name != "db" {
		t.Fatalf("order %v, %v", jails, err)
	}
	for i, want := range [][]string{
		{"ifconfig epair10b inet 10.20.30.10/24 up", "route add default 10.20.30.1", "/bin/sh /etc/rc", "service unbound onestart"},
		{"ifconfig epair11b inet 10.20.31.11/24 up", "route add default 10.20.31.1", "/bin/sh /etc/rc"},
		{"ifconfig epair12b inet 10.20.30.12/24 up", "route add default 10.20.30.1", "/bin/sh /etc/rc"},
	} {
		if got := jails[i].Strings("exec.start"); !slices.Equal(got, want) {
			t.Errorf("%s: exec.start %q", jails[i].Name, got)
		}
	}
	if uuid, _ := jails[2].String("host.hostuuid"); uuid != "00000000-0000-0000-0000-000000000012" {
		t.Errorf("host.hostuuid %s", uuid)
	}
}

func TestOnlyOwnRulesetsThatEndWithBPFVisibleUnhideIt(t *testing.T) {
	file, err := os.Open("testdata/devfs.rules")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sets, err := ParseRulesets("devfs.rules", file)
	if err != nil {
		t.Fatal(err)
	}
	for ruleset, want := range map[string]bool{"13": true, "devfsrules_jail_bpf": true, "14": false, "15": false, "4": false, "5": false, "16": false, "x": false, "": false} {
		if got := sets.UnhidesBPF(ruleset); got != want {
			t.Errorf("ruleset %q: %v", ruleset, got)
		}
	}
	if _, err := ParseRulesets("devfs.rules", strings.NewReader("\n[x]\n")); err == nil || !strings.HasPrefix(err.Error(), "devfs.rules:2:1: bad ruleset") {
		t.Errorf("got %v", err)
	}
}

func TestParametersAreReadByTheirKind(t *testing.T) {
	c, err := memory{}.parse(`a {
		nopersist; exec.clean = false; allow.noraw_sockets; allow.mount = true; allow.nochflags = false; mount.devfs = 1;
		exec.timeout = 5; devfs_ruleset = x; vnet = mount.devfs; interface = em9;
		ip4.addr = "em0|192.0.2.1/24", 192.0.2.2, "lo1|192.0.2.3/255.255.255.240", "192.0.2.4 netmask 0xffffff00 vhid 3";
		ip4.addr += "192.0.2.5,192.0.2.6/30";
		ip6.addr = "em1|2001:db8::1/64", 2001:db8::2;
	}`)
	if err != nil {
		t.Fatal(err)
	}
	j := c.Jails[0]
	for name, want := range map[string]bool{"persist": false, "exec.clean": false, "allow.raw_sockets": false, "allow.mount": true, "allow.chflags": true, "mount.devfs": true, "nopersist": true} {
		if got, set, err := j.Bool(name); got != want || !set || err != nil {
			t.Errorf("Bool(%s) = %v, %v, %v", name, got, set, err)
		}
	}
	if _, set, _ := j.Bool("mount.procfs"); set {
		t.Error("mount.procfs is set")
	}
	if n, set, err := j.Int("exec.timeout"); n != 5 || !set || err != nil {
		t.Errorf("exec.timeout = %d, %v, %v", n, set, err)
	}
	if _, _, err := j.Int("devfs_ruleset"); err == nil || err.Error() != `/etc/jail.conf:3:21: devfs_ruleset: "x" is not a number: want decimal digits` {
		t.Errorf("got %v", err)
	}
	if j.IsVNET() {
		t.Error("vnet = mount.devfs; is vnet")
	}
	addresses, err := j.Addresses()
	var got []string
	for _, a := range addresses {
		got = append(got, fmt.Sprintf("%s|%s%v", a.Interface, a.Prefix, a.Options))
	}
	want := []string{"em0|192.0.2.1/24[]", "em9|192.0.2.2/32[]", "lo1|192.0.2.3/28[]", "em9|192.0.2.4/24[vhid 3]", "em9|192.0.2.5/32[]", "em9|192.0.2.6/30[]", "em1|2001:db8::1/64[]", "em9|2001:db8::2/128[]"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBadAddressesAreAllNamed(t *testing.T) {
	c, err := memory{}.parse(`a { ip4.addr = 192.0.2.256, "em0|", "|192.0.2.1", 192.0.2.1/33, 2001:db8::1, "192.0.2.1/255.0.255.0", "a b|192.0.2.1"; ip6.addr = 192.0.2.1, fe80::1%em0, ::ffff:192.0.2.1, 2001:db8::1/129; }`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Jails[0].Addresses()
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 11 {
		t.Errorf("got %v", err)
	}
}

func TestEveryParameterOfTheManualHasAFate(t *testing.T) {
	if got := reflect.ValueOf(table).Len(); got < 90 {
		t.Errorf("%d parameters", got)
	}
	for name, v := range table {
		if v.Fate != CarriedOut && v.Fate != Refused && v.Fate != NoEffect || v.Kind == "" {
			t.Errorf("%s has fate %q, kind %q", name, v.Fate, v.Kind)
		}
		if v.Fate != CarriedOut && v.Reason == "" {
			t.Errorf("%s: no reason for %s", name, v.Fate)
		}
		if positive(name) != name {
			t.Errorf("%s reads as one with no in front", name)
		}
		for value, e := range v.but {
			if v.Kind == Flag && value != "on" && value != "off" || v.Kind == Choice && !slices.Contains(v.Values, value) {
				t.Errorf("%s has no value %s", name, value)
			}
			if e.fate == v.Fate {
				t.Errorf("%s=%s is no exception", name, value)
			}
		}
	}
}

func TestValuesDecideTheFate(t *testing.T) {
	for _, test := range []struct {
		text string
		fate Fate
		says string // in the reason or the error
		bad  bool
	}{
		{"persist", CarriedOut, "", false},
		{"allow.mount", Refused, "CAP_SYS_ADMIN", false},
		{"allow.nomount", CarriedOut, "", false},
		{"allow.mount = 0", CarriedOut, "", false},
		{"allow.mount = perhaps", Refused, `"perhaps" is not a boolean`, true},
		{"exec.fib = 0", NoEffect, "", false},
		{"exec.fib = 1", Refused, "vnet", false},
		{"sysvshm = inherit", Refused, "", false},
		{"sysvshm = new", CarriedOut, "", false},
		{"sysvshm = old", CarriedOut, `unknown value "old": want new, inherit, disable`, true},
		{"allow.raw_sockets", Refused, "vnet", false},
		{"vnet; allow.raw_sockets", CarriedOut, "", false},
		{"vnet = inherit; allow.raw_sockets", Refused, "", false},
		{"novnet; allow.raw_sockets", Refused, "", false},
		{"securelevel = 3", NoEffect, "", false},
		{"children.max = 2", Refused, "", false},
		{"children.cur = 2", Refused, "read-only", false},
		{"path", CarriedOut, "path has no value", true},
		{"ip4.addr = x", CarriedOut, "bad address", true},
		{"exec.strat = x", Unknown, "did you mean exec.start?", false},
		{"what.is.this", Unknown, "no such parameter", false},
		{"exec.nostart", Unknown, "", false},
	} {
		c, err := memory{}.parse("a { " + test.text + "; }")
		if err != nil {
			t.Fatal(err)
		}
		list := c.Check()
		f := list[len(list)-1]
		text := f.Reason
		if f.Err != nil {
			text = f.Err.Error()
		}
		if f.Fate != test.fate || !strings.Contains(text, test.says) || (f.Err != nil) != test.bad {
			t.Errorf("%s: %s, %s, %v", test.text, f.Fate, f.Reason, f.Err)
		}
		if want := test.bad || test.fate == Refused || test.fate == Unknown; f.Wrong() != want {
			t.Errorf("%s: wrong is %v", test.text, f.Wrong())
		}
	}
}

func TestJailsInsideJailsAreRefused(t *testing.T) {
	c, _ := memory{}.parse("a.b {}")
	if f := c.Check(); len(f) != 1 || f[0].Fate != Refused {
		t.Errorf("got %+v", f)
	}
}

func TestWordsOfTheCommandLineAreAJail(t *testing.T) {
	j, err := ParseArgs([]string{"name=web", "path=/jails/web", "ip4.addr=br0|10.1.1.1/24,10.1.1.2", "persist", "ip4.addr+=10.1.1.3", "exec.start=a,b", "depend=x,y", "command=/bin/sh", "-c", "a=b"})
	if err != nil {
		t.Fatal(err)
	}
	want := "web: path=/jails/web ip4.addr=br0|10.1.1.1/24|10.1.1.2|10.1.1.3 persist exec.start=a,b depend=x|y command=/bin/sh|-c|a=b"
	if got := flat(&Config{Jails: []Jail{j}}); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if p, _ := j.Get("persist"); p.Pos.String() != "command line:1:4" {
		t.Errorf("persist is at %v", p.Pos)
	}
	for _, words := range [][]string{{"=x"}, {"name=../x"}, {"name=*"}, {"command="}} {
		if _, err := ParseArgs(words); err == nil {
			t.Errorf("%q: no error", words)
		}
	}
}
