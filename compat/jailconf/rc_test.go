package jailconf

import (
	"errors"
	"strings"
	"testing"
)

// parseRC reads a text as /etc/rc.conf.
func (m memory) parseRC(text string) (*Config, error) {
	return ParseRC("/etc/rc.conf", strings.NewReader(text), m.open)
}

// What a jail of variables has in any case.
const (
	rcEnds   = ` allow.set_hostname=0 allow.sysvipc=0 enforce_statfs=2`
	rcUsers  = ` exec.clean exec.system_user=root exec.jail_user=root`
	rcRuns   = ` exec.start=/bin/sh /etc/rc exec.stop=/bin/sh /etc/rc.shutdown jail`
	rcShared = ` allow.raw_sockets=0`
)

func TestVariablesOfRCConfMakeJails(t *testing.T) {
	files := memory{"/etc/fstab.a": "", "/etc/other": ""}
	head := "jail_a_rootdir=/a\njail_a_hostname=a.org\n"
	start := "a: host.hostname=a.org path=/a"
	for _, test := range []struct{ name, text, want string }{
		{"no address is vnet", "", start + " vnet" + rcUsers + rcRuns + " mount.fstab=/etc/fstab.a" + rcEnds},
		{"interfaces of a vnet jail", `jail_a_vnet_interface="e0 e1"`, start + " vnet vnet.interface=e0|e1" + rcUsers + rcRuns + " mount.fstab=/etc/fstab.a" + rcEnds},
		{"an address without a mask", "jail_a_ip=192.0.2.1", start + " ip4.addr=192.0.2.1/32" + rcShared + rcUsers + rcRuns + " mount.fstab=/etc/fstab.a" + rcEnds},
		{"addresses of both kinds", `jail_a_ip="192.0.2.1/24,2001:db8::1"; jail_a_interface=em0; jail_a_ip_multi0='em1|192.0.2.2/255.255.255.0'; jail_a_ip_multi1="2001:db8::2/64"; jail_a_ip_multi3=no`,
			start + " interface=em0 ip4.addr=em0|192.0.2.1/24|em1|192.0.2.2/24 ip6.addr=em0|2001:db8::1/128|em0|2001:db8::2/64" + rcShared + rcUsers + rcRuns + " mount.fstab=/etc/fstab.a" + rcEnds + " jail_a_ip_multi3=no"},
		{"the default for all jails", "jail_interface=em0\njail_a_ip=192.0.2.1\njail_socket_unixiproute_only=NO\njail_sysvipc_allow=yes\njail_enforce_statfs=1\njail_devfs_enable=YES\njail_a_devfs_enable=NO\njail_a_procfs_enable=on",
			start + " interface=em0 ip4.addr=em0|192.0.2.1/32 allow.raw_sockets=1" + rcUsers + rcRuns + " mount.fstab=/etc/fstab.a mount.procfs allow.set_hostname=0 allow.sysvipc=1 enforce_statfs=1"},
		{"the default does not hold for addresses", "jail_ip=192.0.2.1", start + " vnet" + rcUsers + rcRuns + " mount.fstab=/etc/fstab.a" + rcEnds},
		{"numbered commands from 0 and from 1", "jail_a_exec_prestart0=p0\njail_a_exec_prestart1=p1\njail_a_exec_prestart3=p3\njail_a_exec_afterstart1=a1\njail_a_exec_afterstart2=a2",
			start + " vnet" + rcUsers + " exec.prestart=p0|p1 exec.start=/bin/sh /etc/rc|a1|a2 exec.stop=/bin/sh /etc/rc.shutdown jail mount.fstab=/etc/fstab.a" + rcEnds + " jail_a_exec_prestart3=p3"},
		{"a start command has no stop command", "jail_a_exec_start=x", start + " vnet" + rcUsers + " exec.start=x mount.fstab=/etc/fstab.a" + rcEnds},
		{"the simple form", "jail_a_exec=x\njail_a_exec_stop=y", start + " vnet" + rcUsers + " exec.start=x mount.fstab=/etc/fstab.a" + rcEnds},
		{"devices", "jail_a_devfs_enable=YES\njail_a_devfs_ruleset=13\njail_a_fstab=/etc/other\njail_a_mount_enable=YES",
			start + " vnet" + rcUsers + rcRuns + " mount.fstab=/etc/other mount.devfs devfs_ruleset=13" + rcEnds},
		{"flags", `jail_a_flags="-l -U www -s 2"`, start + " vnet exec.clean exec.system_user=root exec.jail_user=www" + rcRuns + " mount.fstab=/etc/fstab.a" + rcEnds + " securelevel=2"},
		{"parameters", `jail_a_parameters="allow.mlock=1 allow.sysvipc; exec.start+='x' persist"`,
			start + " vnet" + rcUsers + " exec.start=/bin/sh /etc/rc|x exec.stop=/bin/sh /etc/rc.shutdown jail mount.fstab=/etc/fstab.a allow.set_hostname=0 allow.sysvipc enforce_statfs=2 allow.mlock=1 persist"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := files.parseRC(head + test.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := flat(c); got != test.want {
				t.Errorf("\ngot  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestFilesBesideRCConfAreAskedInOrder(t *testing.T) {
	files := memory{
		"/etc/jail.a.conf":        "a { path = /1; }",
		"/etc/jail.conf.d/a.conf": "a { path = /2; }",
		"/etc/jail.conf.d/b.conf": "b { path = /2; }",
		"/etc/jail.conf":          "path = /3; a {} b {} c {} d {}",
		"/own":                    "c { path = /own; }",
	}
	c, err := files.parseRC("jail_list=\"c a b d\"\njail_c_conf=/own\njail_enable=YES\njail_reverse_stop=YES")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := flat(c), "c: path=/own\na: path=/1\nb: path=/2\nd: path=/3"; got != want {
		t.Errorf("got %s", got)
	}
	if len(c.Unowned) != 0 || len(c.List) != 4 {
		t.Errorf("unowned %v, list %v", c.Unowned, c.List)
	}
	if c, err = files.parseRC("jail_enable=YES"); err != nil || len(c.Jails) != 4 || c.List != nil {
		t.Errorf("without a list: %v, %v", c, err)
	}
}

func TestVariablesThatMeanNothingAreReported(t *testing.T) {
	c, err := memory{}.parseRC("jail_list=my-jail\njail_my_jail_rootdir=/x\njail_my_jail_hostname=x\njail_my_jail_hostnmae=y\njail_whatever=z\njail_your_ip=192.0.2.1\nifconfig_em0=DHCP")
	if err != nil {
		t.Fatal(err)
	}
	var wrong []string
	for _, f := range c.Check() {
		if f.Wrong() {
			wrong = append(wrong, f.Jail+" "+f.Param)
		}
	}
	if got := strings.Join(wrong, ","); got != "my-jail jail_my_jail_hostnmae, jail_whatever, jail_your_ip" {
		t.Errorf("got %s", got)
	}
}

func TestErrorsOfRCConfSayWhereAndWhat(t *testing.T) {
	head := "jail_a_rootdir=/a; jail_a_hostname=a.org\n"
	for _, test := range []struct{ text, at, says string }{
		{"jail_a_ip=192.0.2.999", "2:1", "bad address"},
		{"jail_a_devfs_enable=perhaps", "2:1", "want YES or NO"},
		{"jail_a_flags=-x", "2:1", `"-x" is not known`},
		{"jail_a_fstab=/none", "2:1", "file does not exist"},
		{"jail_a_mount_enable=YES", "2:1", "/etc/fstab.a"},
		{"jail_a_parameters='allow={'", "2:1", "does not fit"},
		{"jail_list='a b'", "2:1", "jail b: there is neither jail_b_rootdir with jail_b_hostname nor a file jail.conf"},
		{"hostname=$(hostname -s)", "2:10", "a command's output"},
		{"hostname=\"x`id`\"", "2:12", "a command's output"},
		{"x=\"${y%.*}\"", "2:4", "bad ${}"},
		{"x=$1", "2:3", "running shell"},
		{". /etc/other", "2:1", `"." is not an assignment`},
		{"if true; then", "2:1", `"if" is not an assignment`},
		{"x=1 ls", "2:5", `"ls" is not an assignment`},
		{"x=a|b", "2:4", "for the shell"},
		{"x=\"a\nb", "2:3", "the string has no end"},
		{"x='a\nb", "2:3", "the string has no end"},
		{"x+=1", "2:1", "is not an assignment"},
	} {
		_, err := memory{}.parseRC(head + test.text)
		var errs Errors
		if !errors.As(err, &errs) {
			t.Errorf("%q: got error %v", test.text, err)
			continue
		}
		if got := errs[0].Pos.String(); got != "/etc/rc.conf:"+test.at || !strings.Contains(errs[0].Msg, test.says) {
			t.Errorf("%q: got %v, want %s: ...%s", test.text, errs[0], test.at, test.says)
		}
	}
}

func TestShellStringsAreReadAsAShellReadsThem(t *testing.T) {
	for text, want := range map[string]string{
		`x=a`:                          "a",
		`x="a b"c'd e'`:                "a bcd e",
		`x="a\"\$\n\\"`:                `a"$\n\`,
		`x='a\'`:                       `a\`,
		`x=a\ b`:                       "a b",
		"x=\"a\\\nb\"":                 "ab",
		"x=a\\\nb":                     "ab",
		`x="a` + "\n" + `b"`:           "a\nb",
		`y=1; x="$y${y}z${none}"`:      "11z",
		`x=${none:-"d e"}${none-f}`:    "d ef",
		`y=; x=${y:-d}${y-f}`:          "d",
		`x=a#b # c`:                    "a#b",
		`# x=b` + "\n" + `export x=a;`: "a",
		`x=a` + "\n" + `x=b`:           "b",
		`x="a$"`:                       "a$",
		"x=a\r\n":                      "a",
		`x='$(id)'`:                    "$(id)",
	} {
		vars, errs := readShell("f", text)
		if len(errs) > 0 || vars["x"].value != want {
			t.Errorf("%q: got %q, %v, want %q", text, vars["x"].value, errs, want)
		}
	}
}

func TestShellBombsAreRefused(t *testing.T) {
	text := "a=xxxxxxxxxxxxxxxx\n" + strings.Repeat("a=$a$a\n", 60)
	if _, errs := readShell("f", text); len(errs) == 0 || !strings.Contains(errs[0].Msg, "more than 64 KiB") {
		t.Errorf("got %v", errs)
	}
	text = "a=" + strings.Repeat("x", 60000) + "\n" + strings.Repeat("b=$a\n", 1000)
	if _, errs := readShell("f", text); len(errs) == 0 || !strings.Contains(errs[0].Msg, "more than 16 MiB") && !strings.Contains(errs[0].Msg, "all to more than") {
		t.Errorf("got %v", errs)
	}
}

func TestAFileIsReadAsWhatItIs(t *testing.T) {
	for text, want := range map[string]bool{
		"jail_enable=\"YES\"\n":                           true,
		"# x\nexport jail_a_ip=1\n":                       true,
		"sshd_enable=\"YES\"":                             true,
		"a {\n path = /x;\n}":                             false,
		"exec.start = \"jail_x=1\";":                      false,
		"exec.prestart = \"x\\\n jail.x=1\";\npath = /x;": false,
	} {
		if got := IsRC(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
