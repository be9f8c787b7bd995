package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
)

// filterCommandFlags are those of the command filter.
type filterCommandFlags struct {
	scope      scopeFlags
	filter     filterFlags
	linkType   string
	dialect    string
	live       bool
	form       int // of -d
	ebpf       bool
	expr       bool
	explain    bool
	prefixOnly bool
	prove      bool
	asIs       bool
	test       string
	verbose    bool
	json       bool
}

func (a *app) filterCommand() *cobra.Command {
	f := &filterCommandFlags{}
	cmd := &cobra.Command{
		Use:   "filter [flags] [EXPRESSION...]",
		Short: "Print the program that a filter becomes inside a scope",
		Long: `filter prints the program for a scope and a pcap expression: it gives the verdict of
the expression on packets in scope, and rejects all others. The program is for
packets as capture files hold them; --live makes it for what a Linux packet socket
gets, where a VLAN tag stands in metadata.`,
		Example: `  jailtap filter -a 10.0.0.5 tcp port 80
  jailtap filter -a 10.0.0.5 -ddd udp > program.txt
  jailtap filter --netns web --policy classic --dialect freebsd --prefix-only -dd
  jailtap filter -a 10.0.0.0/24,fd00::/64 --explain -y RAW icmp6
  tcpdump -ddd -y EN10MB vlan 7 | jailtap filter -a 10.0.0.5 --vlan 7 --program - --prove
  jailtap filter -a 10.0.0.5 --prove --as-is --program attached.txt
  jailtap filter -a 10.0.0.5 --test all.pcapng arp`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(a, cmd.Flags(), args) },
	}
	f.register(cmd)
	return cmd
}

func (f *filterCommandFlags) register(cmd *cobra.Command) {
	f.scope.register(cmd)
	f.filter.register(cmd)
	fs := cmd.Flags()
	fs.StringVarP(&f.linkType, "linktype", "y", bpf.Ethernet.String(), "frames start as of link type `NAME`: EN10MB, NULL, LOOP, RAW, LINUX_SLL, LINUX_SLL2")
	fs.StringVar(&f.dialect, "dialect", ownDialect().String(), "the rules of `linux|freebsd`")
	fs.BoolVar(&f.live, "live", false, "for a Linux packet socket, not for frames of files")
	fs.CountVarP(&f.form, "dump", "d", "print as tcpdump -d does (the default); -dd: as C; -ddd: as numbers``")
	fs.BoolVar(&f.ebpf, "ebpf", false, "print the program as eBPF assembly")
	fs.BoolVar(&f.expr, "expr", false, "print it as a pcap expression, for reading: programs are joined, never texts")
	fs.BoolVar(&f.explain, "explain", false, "mark the lines of the scope and of the user's filter")
	fs.BoolVar(&f.prefixOnly, "prefix-only", false, "the scope alone")
	fs.BoolVar(&f.prove, "prove", false, "check that no accepting path through the program avoids the scope")
	fs.BoolVar(&f.asIs, "as-is", false, "with --prove, check the --program itself, and put nothing in front of it")
	fs.StringVar(&f.test, "test", "", "run the program over the packets of a capture `FILE|-` and count")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "with --test, print the verdict on each packet")
	fs.BoolVar(&f.json, "json", false, "with --test, print JSON")
	complete(cmd, "dialect", "linux", "freebsd")
	complete(cmd, "linktype", "EN10MB", "NULL", "LOOP", "RAW", "LINUX_SLL", "LINUX_SLL2")
}

func (f *filterCommandFlags) run(a *app, fs *pflag.FlagSet, args []string) error {
	view, dialect, err := f.view(fs)
	if err != nil {
		return err
	}
	user, err := f.filter.read(a, args, dialect)
	if err != nil {
		return err
	}
	if f.prefixOnly && user.text != "" {
		return usagef("--prefix-only leaves out the filter, but there is one: %s", user.text)
	}
	source, err := f.scope.open(fs)
	if err != nil {
		return err
	}
	defer source.Close()
	scope, err := source.now()
	if err != nil {
		return err
	}
	switch {
	case f.test != "":
		return f.testOn(a, newJudge(&scope, user, dialect))
	case f.expr:
		return f.printExpr(a, scope, view.LinkType, user)
	}
	var program bpf.Program
	if !f.prefixOnly {
		if program, err = user.compile(view.LinkType); err != nil {
			return err
		}
	}
	if f.asIs {
		return f.print(a.stdout, program, scope, view)
	}
	if program, err = bpf.Compile(scope, view, dialect, program); err != nil {
		var many *bpf.TooManyAddressesError
		if errors.As(err, &many) && dialect == bpf.Linux {
			err = fmt.Errorf("%w: capture --engine ebpf has room for any number", err)
		}
		return err
	}
	return f.print(a.stdout, program, scope, view)
}

// view checks the flags about the program.
func (f *filterCommandFlags) view(fs *pflag.FlagSet) (v bpf.View, d bpf.Dialect, err error) {
	lt, err := bpf.ParseLinkType(f.linkType)
	if err != nil {
		return v, d, usageError{err}
	}
	if d, err = bpf.ParseDialect(f.dialect); err != nil {
		return v, d, usageError{err}
	}
	forms := 0
	for _, given := range []bool{f.form > 0, f.ebpf, f.expr, f.explain, f.test != ""} {
		if given {
			forms++
		}
	}
	switch {
	case forms > 1:
		return v, d, usagef("-d, --ebpf, --expr, --explain and --test exclude one another")
	case f.form > 3:
		return v, d, usagef("-d, -dd and -ddd is all there is")
	case f.live && d != bpf.Linux:
		return v, d, usagef("--live is about Linux")
	case f.test == "" && (f.verbose || f.json):
		return v, d, usagef("-v and --json go with --test")
	case f.test != "" && (fs.Changed("linktype") || f.live):
		return v, d, usagef("--test takes the link type from the file: -y and --live mean nothing")
	case f.prove && (f.test != "" || f.expr):
		return v, d, usagef("--prove is about the program, not about --test and --expr")
	case f.asIs && (!f.prove || f.filter.program == ""):
		return v, d, usagef("--as-is goes with --prove and --program")
	}
	return bpf.View{LinkType: lt, Live: f.live}, d, nil
}

// print prints the program in the form that was asked for. With --prove that
// is none unless another one is.
func (f *filterCommandFlags) print(w io.Writer, p bpf.Program, s bpf.Scope, v bpf.View) error {
	text, err := f.format(p, s, v)
	if err != nil {
		return err
	}
	if f.prove {
		if err := bpf.Prove(p, s, v); err != nil {
			return err
		}
		text += fmt.Sprintf("proved: no accepting path avoids the scope (%d instructions)\n", len(p))
	}
	_, err = io.WriteString(w, text)
	return err
}

func (f *filterCommandFlags) format(p bpf.Program, s bpf.Scope, v bpf.View) (string, error) {
	switch {
	case f.explain:
		return explain(p, s, v)
	case f.ebpf:
		insns, err := ebpf.Translate(p)
		return fmt.Sprint(insns), err
	case f.form == 2:
		return p.C(), nil
	case f.form == 3:
		return p.Decimal(), nil
	case f.form == 0 && f.prove:
		return "", nil
	}
	return p.Text(), nil
}

// explain prints the program with a mark at each line. Those of the scope are
// the ones that can run before it is known that a frame is in scope.
func explain(p bpf.Program, s bpf.Scope, v bpf.View) (string, error) {
	scope, err := bpf.ScopeLines(p, s, v)
	text := ""
	for i := range p {
		mark := "user "
		if err == nil && scope[i] {
			mark = "scope"
		}
		text += mark + "  " + p.Line(i) + "\n"
	}
	return text, err
}

func (f *filterCommandFlags) printExpr(a *app, s bpf.Scope, lt bpf.LinkType, user *userFilter) error {
	expr := s.Expr(lt)
	switch {
	case user.program != nil:
		return usagef("--expr prints expressions, and --program is none")
	case user.expr != "":
		// The scope comes first: vlan and mpls move the offsets of what follows.
		expr = fmt.Sprintf("(%s) and (%s)", expr, user.expr)
		if _, err := user.compile(lt); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(a.stdout, expr)
	return err
}
