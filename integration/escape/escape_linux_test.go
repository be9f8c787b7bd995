//go:build amd64 || arm64

package escape

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

var (
	jailtapProgram = flag.String("jailtap", "", "the `program` to attack; else it is built")
	tableFile      = flag.String("table", "", "write the table of attempts to `FILE`; - is standard output")
)

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "attacker":
		attack()
	case "warden":
		end(keepWarden())
	case "client":
		end(askAsOther())
	case "mule":
		end(keepMule())
	case "socket":
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		end(err)
	default:
		os.Exit(m.Run())
	}
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A row is a line of the table.
type row struct{ name, how, result string }

func TestEveryAttemptFails(t *testing.T) {
	if testing.Short() {
		testutil.Skip(t, "it takes a minute")
	}
	w := newWorld(t)
	tables := make([][]row, len(groups))
	for i, g := range groups {
		tables[i] = make([]row, len(g.attempts))
		t.Run(g.name, func(t *testing.T) { w.makeAll(t, g, tables[i]) })
	}
	printTable(t, slices.Concat(tables...))
}

// atOnce is how many attempts are made at the same time.
const atOnce = 4

func (w *world) makeAll(t *testing.T, g group, rows []row) {
	places := make(chan struct{}, atOnce)
	for i := range g.attempts {
		a := &g.attempts[i]
		t.Run(a.name, func(t *testing.T) {
			if !g.alone {
				t.Parallel()
				places <- struct{}{}
				defer func() { <-places }()
			}
			rows[i] = w.within(t).makeAttempt(a)
		})
	}
}

// makeAttempt makes an attempt in all its settings.
func (w *world) makeAttempt(a *attempt) row {
	if a.needs != nil && !a.needs(w.t) {
		return row{a.name, a.how, "not made: this machine has no such calls"}
	}
	var results []string
	for _, in := range a.in {
		result, escaped := w.try(a, in)
		switch open := slices.Contains(a.open, in); {
		case escaped && open:
			result = "OPEN: " + result
		case escaped:
			w.t.Errorf("ESCAPED (%s): %s", in, result)
			result = "ESCAPED: " + result
		case open:
			w.t.Errorf("%s: it is said to be open, but: %s", in, result)
		}
		results = append(results, fmt.Sprintf("%s: %s", in, result))
	}
	if a.control {
		result, escaped := w.try(a, free)
		for more := 2; !escaped && more > 0; more-- { // a busy machine may have lost what it waits for
			result, escaped = w.try(a, free)
		}
		if !escaped {
			w.t.Errorf("root with a plain socket was not noticed: %s", result)
		}
		results = append(results, "root: "+result)
	}
	return row{a.name, a.how, strings.Join(results, "; ")}
}

// try makes an attempt and judges it.
func (w *world) try(a *attempt, in setting) (result string, escaped bool) {
	first := w.traffic.last() + 1
	p := w.start(a, in)
	last := w.traffic.last()
	var escapes []string
	if n := p.sentThrough(); n > 0 {
		escapes = append(escapes, fmt.Sprintf("%d frames sent", n))
	}
	foreign, lost := p.misjudged()
	if foreign = append(foreign, p.foreign...); len(foreign) > 0 {
		escapes = append(escapes, fmt.Sprintf("%d foreign frames seen", len(foreign)))
		w.t.Logf("%s: foreign, for example %s", in, foreign[0])
	}
	for _, neighbour := range []*witness{w.monitor, w.other} {
		if n := neighbour.missing(first, last); n > 0 {
			escapes = append(escapes, fmt.Sprintf("%d frames stolen from %s", n, neighbour.name))
		}
	}
	if a.outside != nil {
		if harm := a.outside(w, p); harm != "" {
			escapes = append(escapes, harm)
		}
	}
	if p.through && len(escapes) == 0 {
		escapes = append(escapes, "nothing was in the way")
	}
	w.checkMade(p, lost)
	return strings.Join(append(escapes, p.met...), "; "), len(escapes) > 0
}

// checkMade checks that the attempt was really made.
func (w *world) checkMade(p *prey, lost []string) {
	if len(p.met) == 0 && !p.through {
		p.fault("it met nothing")
	}
	if n := w.monitor.arrived(uint32(p.nonce)); n != len(p.crafted) {
		p.fault("%d of %d crafted frames arrived", n, len(p.crafted))
	}
	if len(lost) > 0 {
		p.fault("%d frames of the jail's own were not shown: %s", len(lost), strings.Join(lost, " "))
	}
}

func printTable(t *testing.T, rows []row) {
	if *tableFile == "" {
		return
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tattempt\thow\tresult")
	for i, r := range rows {
		if r.name != "" { // else -run left it out
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", i+1, r.name, r.how, r.result)
		}
	}
	table.Flush()
	if *tableFile == "-" {
		fmt.Print(b.String())
	} else if err := os.WriteFile(*tableFile, []byte(b.String()), 0o644); err != nil {
		t.Error(err)
	}
}

// There are no two attempts of one name, since that is how they are found.
func TestAttemptsHaveNamesOfTheirOwn(t *testing.T) {
	var names []string
	for _, g := range groups {
		for _, a := range g.attempts {
			if slices.Contains(names, a.name) || a.how == "" || len(a.in) == 0 {
				t.Errorf("%s: %+v", g.name, a)
			}
			names = append(names, a.name)
		}
	}
	if len(names) < 75 {
		t.Errorf("%d attempts only", len(names))
	}
}
