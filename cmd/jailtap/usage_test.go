package main

import (
	"strings"
	"testing"
)

func TestCommandLinesWithoutSenseEndWithStatus2(t *testing.T) {
	for line, words := range map[string]string{
		"":                                     "name a command",
		"snoop":                                `unknown command "snoop"`,
		"version now":                          `unknown command "now"`,
		"capture --nope":                       "unknown flag: --nope",
		"capture -i eth0":                      "no scope: say whose packets may be seen with --netns NAME, --pid PID, -j JAIL or -a ADDRESS (or, as root",
		"capture -a 10.0.0.1":                  "say where to capture with -i INTERFACE",
		"capture -i lo -r f -a 10.0.0.1":       "-i and -r exclude",
		"capture -i lo -a 10.0.0.1 --no-scope": "--no-scope and --address contradict",
		"capture -i lo --netns a --pid 1":      "--netns and --pid name more than one jail",
		"capture -i lo -j a --netns b -a 1.2.3.4":     "--jail and --netns name more than one jail",
		"capture -i lo -a 10.0.0.256":                 `bad address "10.0.0.256"`,
		"capture -i lo -a 10.0.0.1/8":                 "10.0.0.0/8 or 10.0.0.1 is meant",
		"capture -i lo -a 10.0.0.1, udp":              `bad address ""`,
		"capture -i lo -a 10.0.0.1 --policy most":     `unknown policy "most"`,
		"capture -i lo -a 10.0.0.1 --vlan 4096":       `bad VLAN "4096"`,
		"capture -i lo -a 10.0.0.1 --engine jit":      `unknown engine "jit"`,
		"capture -i lo -a 10.0.0.1 --direction up":    `unknown direction "up"`,
		"capture -i lo -a 10.0.0.1 --pid x":           `invalid argument "x" for "--pid"`,
		"capture -i lo -a 10.0.0.1 -c 0":              "bad count 0",
		"capture -i lo -a 10.0.0.1 -s -1":             "bad snapshot length -1",
		"capture -i lo -a 10.0.0.1 -B 9999999":        "bad ring size",
		"capture -i lo -a 10.0.0.1 --duration soon":   `bad duration "soon"`,
		"capture -i lo -a 10.0.0.1 -C 1":              "-C and -G need -w FILE",
		"capture -i lo -a 10.0.0.1 -w - -G 1":         "-C and -G need -w FILE",
		"capture -i lo -a 10.0.0.1 -w f -W 3":         "-W needs -C or -G",
		"capture -i lo -a 10.0.0.1 -w f%Q -G 3":       "%Q is not known",
		"capture -i lo -a 10.0.0.1 -w - --stats -":    "would mix",
		"capture -i lo -a 10.0.0.1 -w f --format erf": `unknown file format "erf"`,
		"capture -i lo -a 10.0.0.1 --program f udp":   "exclude one another",
		"capture -r f -a 10.0.0.1 --engine cbpf":      "--engine is about a live capture",
		"filter":                                      "no scope: say whose packets may be seen",
		"filter -a 10.0.0.1 -y FDDI":                  `unknown link type "FDDI": known are EN10MB`,
		"filter -a 10.0.0.1 --dialect plan9":          `unknown dialect "plan9"`,
		"filter -a 10.0.0.1 -dd --ebpf":               "exclude one another",
		"filter -a 10.0.0.1 -dddd":                    "is all there is",
		"filter -a 10.0.0.1 -v":                       "-v and --json go with --test",
		"filter -a 10.0.0.1 --prefix-only udp":        "there is one: udp",
		"filter -a 10.0.0.1 --live --dialect freebsd": "--live is about Linux",
		"filter -a 10.0.0.1 --test f -y RAW":          "takes the link type from the file",
	} {
		r := jailtap(t, line)
		r.mustFail(t, 2, words)
		if !strings.HasSuffix(r.stderr, "--help\n") {
			t.Errorf("%q does not say where help is: %q", line, r.stderr)
		}
	}
}

func TestEveryCommandHelpsWithExamples(t *testing.T) {
	for _, command := range []string{"", "capture", "filter", "version"} {
		r := jailtap(t, command+" --help").mustSucceed(t)
		if !strings.Contains(r.stdout, "Examples:\n  jailtap "+command) {
			t.Errorf("%s--help has no example:\n%s", command, r.stdout)
		}
	}
}

func TestTheShellIsHelpedToComplete(t *testing.T) {
	r := jailtap(t, "__complete capture --engine=").mustSucceed(t)
	if !strings.HasPrefix(r.stdout, "auto\ncbpf\nebpf\n") {
		t.Errorf("%q", r.stdout)
	}
	if r = jailtap(t, "completion bash").mustSucceed(t); !strings.Contains(r.stdout, "jailtap") {
		t.Errorf("%q", r.stdout)
	}
}

func TestTheVersionNamesWhatMatters(t *testing.T) {
	r := jailtap(t, "version").mustSucceed(t)
	if lines := strings.Split(r.stdout, "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "jailtap ") || !strings.HasPrefix(lines[1], "go1.") {
		t.Errorf("%q", r.stdout)
	}
	if r = jailtap(t, "version --json").mustSucceed(t); !strings.HasPrefix(r.stdout, `{"go":"go1.`) {
		t.Errorf("%q", r.stdout)
	}
}
