package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checkJail runs jail check on a file with a text.
func checkJail(t *testing.T, text string, args ...string) (stdout string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jail.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(text), stdout: &out, stderr: &out}
	cmd := a.jailCheckCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"-f", file}, args...))
	err = cmd.Execute()
	return strings.ReplaceAll(out.String(), file, "FILE"), err
}

func TestCheckPrintsWhatBecomesOfEachParameter(t *testing.T) {
	out, err := checkJail(t, "a {\n path = /a;\n securelevel = 2;\n allow.mount;\n exec.strat = x;\n exec.timeout = soon;\n}\nb { depend = a; }")
	want := `JAIL  PARAMETER          BECOMES      WHY
a     name=a             carried out
a     path=/a            carried out
a     securelevel=2      no effect    Linux has none; a jail lacks the capabilities that a high one takes away
a     allow.mount        refused      FILE:4:2: mounting inside needs CAP_SYS_ADMIN, which a jail never gets; mount from outside with mount or mount.fstab
a     exec.strat=x       unknown      FILE:5:2: jail(8) has no such parameter; did you mean exec.start?
a     exec.timeout=soon  wrong        FILE:6:2: exec.timeout: "soon" is not a number: want decimal digits
b     name=b             carried out
b     depend=a           carried out
`
	if out != want {
		t.Errorf("got\n%s", out)
	}
	if err == nil || err.Error() != "3 of 8 parameters are refused or wrong: change or remove them" {
		t.Errorf("got error %v", err)
	}
}

func TestCheckOfAGoodFileSucceeds(t *testing.T) {
	const text = "exec.clean; a { path = /a; } b { path = /b; persist; allow.mount; }"
	if out, err := checkJail(t, text, "a"); err != nil || strings.Contains(out, "persist") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := checkJail(t, text, "b"); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := checkJail(t, text, "c"); err == nil || err.Error() != `unknown jail "c": the configuration has a, b` {
		t.Errorf("got %v", err)
	}
}

func TestCheckNamesProblemsOfTheWholeFile(t *testing.T) {
	for text, want := range map[string]string{
		"a { depend = b; } b { depend = a; }": "in a circle: a -> b -> a",
		"# nothing":                           "there is no jail in the configuration",
		"a { path = ; }\nb {":                 "jail.conf:1:12",
		"jail_list=x\njail_x_rootdir=$(pwd)":  "jail.conf:2:16: a command's output",
	} {
		if _, err := checkJail(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestCheckPrintsJSON(t *testing.T) {
	out, err := checkJail(t, "a { ip4.addr = 192.0.2.1, 192.0.2.2; vnet; securelevel = x; }", "--json")
	if err == nil {
		t.Error("no error")
	}
	var lines []map[string]any
	if err := json.Unmarshal([]byte(out), &lines); err != nil || len(lines) != 4 {
		t.Fatalf("%v\n%s", err, out)
	}
	if l := lines[1]; l["parameter"] != "ip4.addr" || len(l["values"].([]any)) != 2 || l["fate"] != "carried out" || l["at"] != "FILE:1:5" {
		t.Errorf("got %v", l)
	}
	if l := lines[3]; l["fate"] != "wrong" || !strings.Contains(l["error"].(string), "not a number") {
		t.Errorf("got %v", l)
	}
}

func TestCheckReadsStandardInput(t *testing.T) {
	if out, err := checkJail(t, "a { persist; }", "-f", "-"); err != nil || !strings.Contains(out, "persist") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestLongAndOddValuesKeepTheTable(t *testing.T) {
	out, err := checkJail(t, "a { exec.start = \""+strings.Repeat("ä", 100)+"\\n\\x1b[2J\"; exec.stop = \"x\\n\\x1b[2J\"; }")
	if err != nil || strings.Count(out, "\n") != 4 || strings.ContainsAny(out, "\x1b") || !strings.Contains(out, "x??[2J") {
		t.Errorf("%v\n%q", err, out)
	}
}
