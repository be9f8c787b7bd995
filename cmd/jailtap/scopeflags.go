package main

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jailtap/bpf"
	"jailtap/nsjail"
)

// scopeFlags name what may be seen.
type scopeFlags struct {
	jail      string
	netns     string
	pid       int
	addresses []string
	policy    string
	vlan      string
}

func (f *scopeFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.jail, "jail", "j", "", "the addresses of the jail `NAME`: one of jailtap's, by name or number, or else a network namespace's name")
	fs.StringVar(&f.netns, "netns", "", "the addresses of the network namespace `NAME|PATH`")
	fs.IntVar(&f.pid, "pid", 0, "the addresses of the network namespace of process `PID`")
	fs.StringArrayVarP(&f.addresses, "address", "a", nil,
		"plain addresses `ADDR[/LEN]`, repeatable, also separated by commas; @FILE has one a line")
	fs.StringVar(&f.policy, "policy", bpf.Full.String(),
		"`POLICY`: classic (IPv4, the rule of 2008) or full (IPv6 too, and ARP about the addresses)")
	fs.StringVar(&f.vlan, "vlan", "none", "tagged frames in scope, `none|any|ID,...`")
	complete(cmd, "policy", "full", "classic")
	complete(cmd, "vlan", "none", "any")
}

// complete offers words for a flag to the shell.
func complete(cmd *cobra.Command, flag string, words ...string) {
	// The error is that there is no such flag, or twice this call.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// given lists the flags of the command line that name a scope.
func (f *scopeFlags) given(fs *pflag.FlagSet) (sources, all []string) {
	for _, name := range []string{"jail", "netns", "pid"} {
		if fs.Changed(name) {
			sources = append(sources, "--"+name)
		}
	}
	all = sources
	for _, name := range []string{"address", "policy", "vlan"} {
		if fs.Changed(name) {
			all = append(all, "--"+name)
		}
	}
	return sources, all
}

// A scopeSource is where a scope comes from.
type scopeSource struct {
	jail   addressed      // nil: none
	fixed  []netip.Prefix // besides the jail's
	policy bpf.Policy
	vlans  bpf.VLANs
}

// An addressed thing has addresses, which may change.
type addressed interface {
	fmt.Stringer
	Addresses() ([]netip.Prefix, error)
	Watch(ctx context.Context, report func([]netip.Prefix)) error
	Close() error
}

// open finds what the flags name. Of the ways to name a jail there is one at
// most; addresses may come with it.
func (f *scopeFlags) open(fs *pflag.FlagSet) (*scopeSource, error) {
	s := &scopeSource{}
	sources, _ := f.given(fs)
	if len(sources) > 1 {
		return nil, usagef("%s name more than one jail; take one (-a may add addresses)", strings.Join(sources, " and "))
	}
	if len(sources) == 0 && len(f.addresses) == 0 {
		return nil, usagef("no scope: say whose packets may be seen with --netns NAME, --pid PID, -j JAIL or -a ADDRESS")
	}
	var err error
	if s.policy, err = bpf.ParsePolicy(f.policy); err != nil {
		return nil, usageError{err}
	}
	if s.vlans, err = bpf.ParseVLANs(f.vlan); err != nil {
		return nil, usageError{err}
	}
	if s.fixed, err = parseAddresses(f.addresses); err != nil {
		return nil, err
	}
	switch {
	case fs.Changed("jail"):
		s.jail, err = openJail(f.jail)
	case fs.Changed("netns"):
		s.jail, err = opened(nsjail.OpenNamespace(f.netns))
	case fs.Changed("pid"):
		s.jail, err = opened(nsjail.OpenPID(f.pid))
	}
	return s, err
}

func (s *scopeSource) Close() {
	if s.jail != nil {
		s.jail.Close()
	}
}

// now is the scope with the addresses that the jail has at this moment.
func (s *scopeSource) now() (bpf.Scope, error) {
	if s.jail == nil {
		return s.with(nil), nil
	}
	addrs, err := s.jail.Addresses()
	if err != nil {
		return bpf.Scope{}, err
	}
	if len(addrs) == 0 && len(s.fixed) == 0 {
		return bpf.Scope{}, fmt.Errorf("%v has no addresses (loopback ones are not its own): give it one, or name addresses with -a", s.jail)
	}
	return s.with(addrs), nil
}

func (s *scopeSource) with(addrs []netip.Prefix) bpf.Scope {
	all := append(append([]netip.Prefix{}, addrs...), s.fixed...)
	return bpf.Scope{Addrs: all, Policy: s.policy, VLANs: s.vlans}
}

// String says whose the scope is: "addresses" or the jail.
func (s *scopeSource) String() string {
	if s.jail == nil {
		return "addresses"
	}
	return s.jail.String()
}

// describe puts a scope in words, with the first few of its addresses.
func (s *scopeSource) describe(scope bpf.Scope) string {
	const most = 8
	var b strings.Builder
	fmt.Fprintf(&b, "%v ", s)
	for i, p := range scope.Addrs {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(scope.Addrs)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if p.IsSingleIP() {
			b.WriteString(p.Addr().String())
		} else {
			b.WriteString(p.String())
		}
	}
	if len(scope.Addrs) == 0 {
		b.WriteString("(none)")
	}
	fmt.Fprintf(&b, ", policy %v", scope.Policy)
	switch {
	case scope.VLANs.Any:
		b.WriteString(", any VLAN")
	case !scope.VLANs.None():
		fmt.Fprintf(&b, ", VLAN %s", strings.Trim(fmt.Sprint(scope.VLANs.IDs), "[]"))
	}
	return b.String()
}

// parseAddresses reads the values of -a.
func parseAddresses(values []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, value := range values {
		if name, ok := strings.CutPrefix(value, "@"); ok {
			more, err := readAddresses(name)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
			continue
		}
		for field := range strings.SplitSeq(value, ",") {
			p, err := bpf.ParseAddr(strings.TrimSpace(field))
			if err != nil {
				return nil, usageError{err}
			}
			list = append(list, p)
		}
	}
	return list, nil
}

// readAddresses reads a file of addresses, one a line; # begins a comment.
func readAddresses(name string) ([]netip.Prefix, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var list []netip.Prefix
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := bpf.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		list = append(list, p)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no addresses", name)
	}
	return list, nil
}
