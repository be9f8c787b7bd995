package conform

import (
	"fmt"
	"io"
	"strings"

	"jailtap/bpf"
)

// Report prints docs/PARITY.md. What can be computed is: the columns about
// validation and verdicts are the answers of bpf.
func Report(w io.Writer) error {
	b := &strings.Builder{}
	b.WriteString(`# FreeBSD and Linux, side by side

Made by ` + "`jailtap conform report`" + `; a test fails if this page is not what it prints.
FreeBSD is 12.1-STABLE on amd64 (what a running kernel answered, and sys/net/bpf_filter.c,
whose interpreter is the same in 13). Linux is 6.18 on x86-64. FreeBSD has two interpreters:
one for packets that a bpf(4) device receives ("received"), which are chains of mbufs, and
one for packets in a flat buffer ("flat": write filters, libpcap). Linux has one.

Everything that is not on this page is the same on both, as far as the conformance vectors
(` + "`compat/vectors`" + `) ask: ` + "`jailtap conform run`" + ` holds a system to them, and ` + "`jailtap conform diff`" + `
compares what two systems answered.
`)
	validation(b)
	instructions(b)
	causes(b)
	linkTypes(b)
	for _, s := range sections {
		b.WriteString("\n## " + s.title + "\n\n" + s.text)
		table(b, s.head, s.rows)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table prints a table. The head has its columns separated by bars.
func table(b *strings.Builder, head string, rows [][]string) {
	columns := strings.Count(head, "|") + 1
	fmt.Fprintf(b, "| %s |\n|%s\n", head, strings.Repeat(" --- |", columns))
	for _, row := range rows {
		b.WriteString("|")
		for _, cell := range row {
			fmt.Fprintf(b, " %s |", strings.ReplaceAll(cell, "|", "\\|"))
		}
		b.WriteString("\n")
	}
}

func taken(p bpf.Program, d bpf.Dialect) string {
	if p.Validate(d) != nil {
		return "EINVAL"
	}
	return "taken"
}

func validation(b *strings.Builder) {
	b.WriteString("\n## Validation\n\nBIOCSETF, BIOCSETFNR and BIOCSETWF on FreeBSD; SO_ATTACH_FILTER on Linux. In code that nothing reaches, too.\n\n")
	var rows [][]string
	for _, a := range Attaches() {
		rows = append(rows, []string{a.What, taken(a.Program, bpf.FreeBSD), taken(a.Program, bpf.Linux)})
	}
	table(b, "program | FreeBSD | Linux", rows)
	fmt.Fprintf(b, "\nBoth take the same %d opcodes, and no other of 65536.\n", len(Opcodes()))
}

func instructions(b *strings.Builder) {
	b.WriteString("\n## Instructions\n\nVerdicts on the 8 bytes `45 01 02 03 04 05 06 07`.\n\n")
	pkt := bpf.Packet{Data: []byte{0x45, 1, 2, 3, 4, 5, 6, 7}, WireLen: 8}
	var rows [][]string
	for _, r := range Runs() {
		row := []string{r.What, "`" + strings.ReplaceAll(assembly(r.Program), "\n", "; ") + "`"}
		for _, m := range []Mode{Receive, Flat, Linux} {
			verdict := "EINVAL"
			if r.Program.Validate(m.Dialect()) == nil {
				verdict = fmt.Sprint(m.VM().Run(r.Program, pkt))
			}
			row = append(row, verdict)
		}
		rows = append(rows, row)
	}
	table(b, "what | program | FreeBSD, received | FreeBSD, flat | Linux", rows)
}

// assembly is a program without the numbers of its lines.
func assembly(p bpf.Program) string {
	var lines []string
	for i := range p {
		_, text, _ := strings.Cut(p.Line(i), ") ")
		lines = append(lines, strings.Join(strings.Fields(text), " "))
	}
	return strings.Join(lines, "\n")
}

func causes(b *strings.Builder) {
	b.WriteString("\n## Causes of differences\n\nWhat `bpf.Portable` finds in a program, and `jailtap conform diff` groups by. `bpf.Normalize` makes of\na program that FreeBSD takes one that Linux takes too, with the verdicts of a flat buffer.\n\n")
	var rows [][]string
	for _, c := range Causes {
		rows = append(rows, []string{string(c.Cause), c.What, c.FreeBSD, c.Linux, c.Advice})
	}
	table(b, "cause | what | FreeBSD | Linux | what helps", rows)
}

func linkTypes(b *strings.Builder) {
	b.WriteString("\n## Link types\n\nScopes are known for these. The numbers are libpcap's DLT_ values.\n\n")
	var rows [][]string
	for _, lt := range bpf.LinkTypes() {
		t := linkTypeText[lt]
		rows = append(rows, []string{fmt.Sprintf("%v (%d)", lt, uint32(lt)), t.freebsd, t.linux, t.multicast})
	}
	table(b, "link type | FreeBSD | Linux | `multicast` and `broadcast` in a scope", rows)
}
