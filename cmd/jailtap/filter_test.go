package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The program of 2008, as a person reads it.
const classicUDP = `(000) ldh      [12]
(001) jeq      #0x800           jt 2	jf 11
(002) ld       [26]
(003) jeq      #0xa000001       jt 8	jf 4
(004) ld       [30]
(005) jeq      #0xa000001       jt 8	jf 6
(006) ldb      [0]
(007) jset     #0x1             jt 8	jf 11
(008) ldb      [23]
(009) jeq      #0x11            jt 10	jf 11
(010) ret      #262144
(011) ret      #0
`

func TestAProgramIsPrintedInEveryForm(t *testing.T) {
	const filter = "filter -a 10.0.0.1 --policy classic "
	for line, want := range map[string]string{
		"udp":                  classicUDP,
		"-d udp":               classicUDP,
		"--prove udp":          "proved: no accepting path avoids the scope (12 instructions)\n",
		"-d --prove udp":       classicUDP + "proved: no accepting path avoids the scope (12 instructions)\n",
		"--expr udp":           "((ip and (host 10.0.0.1 or multicast or broadcast))) and (udp)\n",
		"--expr --prefix-only": "(ip and (host 10.0.0.1 or multicast or broadcast))\n",
		"-s 96 --expr":         "(ip and (host 10.0.0.1 or multicast or broadcast))\n",
		"-ddd -y RAW --prefix-only --policy classic-host": "9\n48 0 0 0\n84 0 0 240\n21 0 5 64\n32 0 0 12\n21 2 0 167772161\n32 0 0 16\n21 0 1 167772161\n6 0 0 4294967295\n6 0 0 0\n",
	} {
		if r := jailtap(t, filter+line).mustSucceed(t); r.stdout != want || r.stderr != "" {
			t.Errorf("%s:\n%s\nwant\n%s", line, r.stdout, want)
		}
	}
}

func TestExplainMarksEachLine(t *testing.T) {
	r := jailtap(t, "filter -a 10.0.0.1 --policy classic --explain udp").mustSucceed(t)
	var marks, program strings.Builder
	for line := range strings.Lines(r.stdout) {
		marks.WriteByte(line[0])
		program.WriteString(line[7:])
	}
	if program.String() != classicUDP || marks.String() != "ssssssssuuus" {
		t.Errorf("%s", r.stdout)
	}
}

func TestTheEBPFFormIsAssembly(t *testing.T) {
	r := jailtap(t, "filter -a 10.0.0.1 --ebpf udp").mustSucceed(t)
	if !strings.Contains(r.stdout, "LdAbsH imm: 12") || !strings.Contains(r.stdout, "Exit") {
		t.Errorf("%s", r.stdout)
	}
}

func TestOneFormOfAProgramIsReadAndAnotherPrinted(t *testing.T) {
	first := ""
	for _, form := range []string{"-d", "-dd", "-ddd"} {
		program := jailtap(t, "filter -a 10.0.0.2 "+form+" udp").mustSucceed(t).stdout
		got := jailtapWith(t, program, "filter -a 10.0.0.1 --program - --prove -ddd").mustSucceed(t).stdout
		if first == "" {
			first = got
		}
		if got != first || !strings.Contains(got, "proved") {
			t.Errorf("%s: %s, want %s", form, got, first)
		}
	}
}

func TestAFinishedProgramIsProvedAsItIs(t *testing.T) {
	program := jailtap(t, "filter -a 10.0.0.1 -ddd udp").mustSucceed(t).stdout
	r := jailtapWith(t, program, "filter -a 10.0.0.1 --prove --as-is --program -").mustSucceed(t)
	if !strings.HasPrefix(r.stdout, "proved: ") {
		t.Errorf("%q", r.stdout)
	}
	r = jailtapWith(t, program, "filter -a 10.0.0.2 --prove --as-is --program -")
	if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "not proved: instruction (") {
		t.Errorf("another's program: status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
}

func TestTheExpressionMayComeFromAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "expr")
	if err := os.WriteFile(name, []byte("udp\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := jailtap(t, "filter -a 10.0.0.1 --policy classic -F "+name).mustSucceed(t); r.stdout != classicUDP {
		t.Errorf("%s", r.stdout)
	}
}

func TestAddressesMayComeFromAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "addrs")
	if err := os.WriteFile(name, []byte("# web\n10.0.0.1\n\n fd00::/64 # the rest\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := jailtap(t, "filter -a 10.0.0.2,10.0.0.3 -a @"+name+" --expr --prefix-only").mustSucceed(t)
	for _, want := range []string{"host 10.0.0.1", "host 10.0.0.2", "host 10.0.0.3", "net fd00::/64"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in %s", want, r.stdout)
		}
	}
	if err := os.WriteFile(name, []byte("10.0.0.1\nweb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	jailtap(t, "filter -a @"+name).mustFail(t, 1, name+`:2: bad address "web"`)
}

func TestAFilterIsTestedOnACaptureFile(t *testing.T) {
	file := mixFile(t, "mix.pcapng")
	for line, want := range map[string]string{
		"-a 10.0.0.1":                       "8 packets, 4 in scope, 4 matched\n", // two of its own, ARP, and the broadcast
		"-a 10.0.0.1 udp":                   "8 packets, 4 in scope, 2 matched\n",
		"-a 10.0.0.1,fd00::1 --vlan 7":      "8 packets, 6 in scope, 6 matched\n",
		"-a 10.0.0.1 --policy classic":      "8 packets, 3 in scope, 3 matched\n",
		"-a 10.0.0.1 arp) or (ip6":          "",
		"-a 10.0.0.1 --dialect freebsd arp": "8 packets, 4 in scope, 1 matched\n",
		"-a 10.0.0.1 --json udp":            `{"packets":8,"in_scope":4,"matched":2}` + "\n",
		"-a 10.0.0.1 -v tcp": "1: in scope, rejected\n2: out of scope\n3: in scope, matched, verdict 262144\n4: in scope, rejected\n" +
			"5: out of scope\n6: out of scope\n7: out of scope\n8: in scope, rejected\n8 packets, 4 in scope, 1 matched\n",
	} {
		r := jailtap(t, "filter --test "+file+" "+line)
		if want == "" {
			r.mustFail(t, 1, "syntax error")
		} else if r.mustSucceed(t).stdout != want {
			t.Errorf("%s: %s", line, r.stdout)
		}
	}
}
