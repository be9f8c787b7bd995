package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"jailtap/compat/jailconf"
)

func (a *app) jailCheckCommand() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check -f FILE [JAIL...]",
		Short: "Tell what becomes of a FreeBSD jail configuration on Linux",
		Long: `check reads a jail.conf or an rc.conf of FreeBSD, and prints for each parameter of each
jail what becomes of it:
  carried out  it does what it does on FreeBSD, or what comes closest
  no effect    it changes nothing, and the jail can do without
  refused      the jail is not made, since it would lack something that it counts
               on, or would be less confined than it should be
  unknown      FreeBSD has no such parameter
Nothing is run and nothing is made. The exit status is 1 if something is wrong or
refused.`,
		Example: `  jailtap jail check -f /etc/jail.conf
  jailtap jail check -f rc.conf www
  jailtap jail check --json -f /etc/jail.conf`,
		RunE: func(_ *cobra.Command, args []string) error {
			config, err := a.readJailConfig(file)
			if err != nil {
				return err
			}
			return a.checkJails(config, args, asJSON)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "/etc/jail.conf", "read `FILE|-`, a jail.conf or an rc.conf")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// readJailConfig reads a jail.conf or an rc.conf; - is standard input.
func (a *app) readJailConfig(file string) (*jailconf.Config, error) {
	if file == "-" {
		return jailconf.ReadFrom("standard input", a.stdin)
	}
	return jailconf.Read(file)
}

// A checkLine is what check prints of a parameter.
type checkLine struct {
	Jail   string        `json:"jail,omitempty"`
	Param  string        `json:"parameter"`
	Values []string      `json:"values,omitempty"`
	Fate   jailconf.Fate `json:"fate"`
	Reason string        `json:"reason,omitempty"`
	Error  string        `json:"error,omitempty"`
	At     string        `json:"at"`
}

func (a *app) checkJails(config *jailconf.Config, names []string, asJSON bool) error {
	jails, orderErr := config.Order(names)
	wanted := map[string]bool{"": len(names) == 0}
	for _, j := range jails {
		wanted[j.Name] = true
	}
	if orderErr != nil && len(names) > 0 {
		return orderErr
	}
	lines, wrong := []checkLine{}, 0
	for _, f := range config.Check() {
		if orderErr == nil && !wanted[f.Jail] {
			continue
		}
		if f.Wrong() {
			wrong++
		}
		lines = append(lines, checkLineOf(f))
	}
	if err := printCheck(a.stdout, lines, asJSON); err != nil {
		return err
	}
	switch {
	case orderErr != nil:
		return orderErr
	case wrong > 0:
		return fmt.Errorf("%d of %d parameters are refused or wrong: change or remove them", wrong, len(lines))
	case len(config.Jails) == 0:
		return fmt.Errorf("there is no jail in the configuration: want NAME { PARAMETER = VALUE; ... } or jail_list")
	}
	return nil
}

func checkLineOf(f jailconf.Finding) checkLine {
	line := checkLine{f.Jail, f.Param, f.Values, f.Fate, f.Reason, "", f.Pos.String()}
	if f.Err != nil {
		line.Fate, line.Error = "wrong", strings.TrimPrefix(f.Err.Error(), f.Pos.String()+": ")
	}
	return line
}

// printCheck prints a table; the last column, the place, and what is told of
// it, are as long as they are.
func printCheck(w io.Writer, lines []checkLine, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(lines)
	}
	rows := [][4]string{{"JAIL", "PARAMETER", "BECOMES", "WHY"}}
	for _, l := range lines {
		rows = append(rows, [4]string{orDash(l.Jail), l.text(), string(l.Fate), l.why()})
	}
	var width [3]int
	for _, row := range rows {
		for i := range width {
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range rows {
		line := fmt.Sprintf("%-*s  %-*s  %-*s  %s", width[0], row[0], width[1], row[1], width[2], row[2], row[3])
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// maxShown is how many characters of a parameter with its value are shown.
const maxShown = 48

// text is the parameter with its values as one line.
func (l checkLine) text() string {
	text := l.Param
	if l.Values != nil {
		text += "=" + strings.Join(l.Values, ",")
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > maxShown {
		return string(runes[:maxShown-3]) + "..."
	}
	return text
}

// why is the reason, or, if something is wrong, what and where.
func (l checkLine) why() string {
	switch {
	case l.Error != "":
		return l.At + ": " + strings.ReplaceAll(l.Error, "\n", "; ")
	case l.Fate == jailconf.Refused || l.Fate == jailconf.Unknown:
		return l.At + ": " + l.Reason
	}
	return l.Reason
}
