package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"jailtap/nsjail/jail"
)

// jlsFlags are those of jls(8).
type jlsFlags struct {
	jail                             string
	header, names, quoted            bool
	withNames, forJail, verbose, all bool
	libxo                            string
}

func (a *app) jlsCommand() *cobra.Command {
	f := &jlsFlags{}
	cmd := &cobra.Command{
		Use:   "jls [-hNnqsv] [-j JAIL] [--libxo json] [PARAM...]",
		Short: "List jails, as FreeBSD's jls(8) does",
		Long: `jls lists the jails that run: number, first address, host name and path; or the values
of PARAMs, of which jid, name, path, host.hostname, ip4.addr, ip6.addr, vnet, persist
and dying are known of every jail, and others of those that were created with them.`,
		Example: `  jailtap jls
  jailtap jls -j web -n
  jailtap jls -s
  jailtap jls --libxo json
  jailtap jls jid name path`,
		RunE: func(_ *cobra.Command, params []string) error { return f.run(a, params) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.all, "dying", "d", false, "list those that are being removed too; there are none to see")
	fs.BoolVarP(&f.header, "heading", "h", false, "print the names of PARAMs first")
	fs.BoolVarP(&f.names, "names", "N", false, "print names in the place of numbers")
	fs.BoolVarP(&f.withNames, "params", "n", false, "print NAME=VALUE, of all parameters if none is given")
	fs.BoolVarP(&f.quoted, "quote", "q", false, "put quotes around values with blanks, as a shell wants them")
	fs.BoolVarP(&f.forJail, "jail-form", "s", false, "print parameters as jail -c takes them")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "print more lines about each jail")
	fs.StringVarP(&f.jail, "jail", "j", "", "list the jail of this `NAME|JID` only")
	fs.StringVar(&f.libxo, "libxo", "text", "print as `json|text`")
	fs.Bool("help", false, "help for jls") // -h is taken
	complete(cmd, "libxo", "json", "text")
	return cmd
}

func (f *jlsFlags) run(a *app, params []string) error {
	if err := oneOf("format", f.libxo, "json", "text"); err != nil {
		return err
	}
	jails, err := f.find()
	if err != nil {
		return err
	}
	var list []jailParams
	for _, j := range jails {
		list = append(list, paramsOf(j.Spec()))
	}
	switch {
	case f.libxo == "json":
		return f.printJSON(a.stdout, list, params)
	case f.verbose:
		return f.printVerbose(a.stdout, list)
	case f.withNames || f.forJail || len(params) > 0:
		return f.printParams(a.stdout, list, params)
	}
	return f.printTable(a.stdout, list)
}

func (f *jlsFlags) find() ([]*jail.Jail, error) {
	if f.jail == "" {
		return jail.System.List()
	}
	j, err := jail.System.Find(f.jail)
	return []*jail.Jail{j}, err
}

// jailParams are a jail's parameters in the order of lists.
type jailParams []jail.Param

// paramsOf has those that every jail has, and then what it was created with.
func paramsOf(s jail.Spec) jailParams {
	list := jailParams{
		{Name: "jid", Values: []string{strconv.Itoa(s.JID)}},
		{Name: "name", Values: []string{s.Name}},
		{Name: "path", Values: []string{s.Path}},
		{Name: "host.hostname", Values: []string{s.Hostname}},
		{Name: "ip4.addr", Values: addressTexts(s.Addresses, true)},
		{Name: "ip6.addr", Values: addressTexts(s.Addresses, false)},
		{Name: "persist", Values: []string{strconv.FormatBool(s.Persist)}},
		{Name: "vnet", Values: []string{map[bool]string{true: "new", false: "inherit"}[s.Network == jail.VNET]}},
		{Name: "dying", Values: []string{"false"}},
	}
	for _, p := range s.Params {
		if _, ok := list.get(p.Name); !ok {
			list = append(list, p)
		}
	}
	return list
}

// addressTexts are the addresses of a family, as ip4.addr wants them.
func addressTexts(addrs []jail.Address, ipv4 bool) []string {
	var list []string
	for _, a := range addrs {
		if a.Prefix.Addr().Is4() == ipv4 {
			list = append(list, a.Prefix.Addr().String())
		}
	}
	return list
}

func (l jailParams) get(name string) (jail.Param, bool) {
	i := slices.IndexFunc(l, func(p jail.Param) bool { return p.Name == name })
	if i < 0 {
		return jail.Param{}, false
	}
	return l[i], true
}

func (l jailParams) text(name string) string {
	p, _ := l.get(name)
	return strings.Join(p.Values, ",")
}

// address is the first one, or "" (jls(8) prints "-" then).
func (l jailParams) address() string {
	for _, name := range []string{"ip4.addr", "ip6.addr"} {
		if p, _ := l.get(name); len(p.Values) > 0 {
			return p.Values[0]
		}
	}
	return ""
}

// id is what a jail is called in the first column.
func (f *jlsFlags) id(l jailParams) string {
	if f.names {
		return l.text("name")
	}
	return l.text("jid")
}

// The forms are those of usr.sbin/jls/jls.c.
func (f *jlsFlags) printTable(w io.Writer, list []jailParams) error {
	if _, err := fmt.Fprintln(w, "   JID  IP Address      Hostname                      Path"); err != nil {
		return err
	}
	for _, l := range list {
		ip := l.address()
		if ip == "" {
			ip = "-"
		}
		if _, err := fmt.Fprintf(w, "%6s  %-15.15s %-29.29s %.74s\n", f.id(l), ip, l.text("host.hostname"), l.text("path")); err != nil {
			return err
		}
	}
	return nil
}

func (f *jlsFlags) printVerbose(w io.Writer, list []jailParams) error {
	var b strings.Builder
	b.WriteString("   JID  Hostname                      Path\n        Name                          State\n        CPUSetID\n        IP Address(es)\n")
	for _, l := range list {
		// Linux has no sets of CPUs with numbers.
		fmt.Fprintf(&b, "%6s  %-29.29s %.74s\n%8s%-29.29s %.74s\n%8s-\n", f.id(l), l.text("host.hostname"), l.text("path"), "", l.text("name"), "ACTIVE", "")
		for _, name := range []string{"ip4.addr", "ip6.addr"} {
			p, _ := l.get(name)
			for _, addr := range p.Values {
				fmt.Fprintf(&b, "%8s%s\n", "", addr)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printParams prints values, or NAME=VALUE.
func (f *jlsFlags) printParams(w io.Writer, list []jailParams, params []string) error {
	if f.header {
		if _, err := fmt.Fprintln(w, strings.Join(params, " ")); err != nil {
			return err
		}
	}
	for _, l := range list {
		chosen, err := f.choose(l, params)
		if err != nil {
			return err
		}
		var fields []string
		for _, p := range chosen {
			fields = append(fields, f.field(p))
		}
		if _, err := fmt.Fprintln(w, strings.Join(fields, " ")); err != nil {
			return err
		}
	}
	return nil
}

// choose finds parameters; without names all, and for jail -c those that it takes.
func (f *jlsFlags) choose(l jailParams, params []string) (jailParams, error) {
	if len(params) == 0 {
		if f.forJail {
			return slices.DeleteFunc(slices.Clone(l), func(p jail.Param) bool {
				return p.Name == "dying" || p.Values == nil && strings.HasSuffix(p.Name, ".addr")
			}), nil
		}
		return l, nil
	}
	var list jailParams
	for _, name := range params {
		p, ok := l.get(name)
		if !ok {
			return nil, fmt.Errorf("unknown parameter %q of jail %s: it was not created with it", name, l.text("name"))
		}
		list = append(list, p)
	}
	return list, nil
}

func (f *jlsFlags) field(p jail.Param) string {
	value := strings.Join(p.Values, ",")
	if f.withNames || f.forJail {
		switch { // a boolean is on or off by its name
		case p.Values == nil && !strings.HasSuffix(p.Name, ".addr"):
			return p.Name
		case p.Name == "persist" || p.Name == "dying":
			return map[string]string{"true": "", "false": "no"}[value] + p.Name
		}
	}
	switch {
	case f.quoted || f.forJail:
		value = quote(value)
	case value == "" && !f.withNames:
		value = "-"
	}
	if f.withNames || f.forJail {
		return p.Name + "=" + value
	}
	return value
}

// quote puts a value in quotes if a shell would not take it for one word.
func quote(value string) string {
	if value != "" && !strings.ContainsFunc(value, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"'`$\\|&;<>()*?[]#~{}!", r)
	}) {
		return value
	}
	if !strings.ContainsAny(value, "\"$`\\!") {
		return `"` + value + `"`
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// printJSON prints what `jls --libxo json` does.
func (f *jlsFlags) printJSON(w io.Writer, list []jailParams, params []string) error {
	rows := []any{}
	for _, l := range list {
		if len(params) == 0 && !f.withNames && !f.verbose {
			jid, _ := strconv.Atoi(l.text("jid"))
			rows = append(rows, map[string]any{"jid": jid, "ipv4": l.address(), "hostname": l.text("host.hostname"), "path": l.text("path")})
			continue
		}
		chosen, err := f.choose(l, params)
		if err != nil {
			return err
		}
		row := map[string]string{}
		for _, p := range chosen {
			row[p.Name] = strings.Join(p.Values, ",")
		}
		rows = append(rows, row)
	}
	return json.NewEncoder(w).Encode(map[string]any{"__version": "2", "jail-information": map[string]any{"jail": rows}})
}
