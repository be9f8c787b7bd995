package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jailtap/nsjail"
	"jailtap/nsjail/jail"
)

// jailSockets finds what is a jail's: its network namespace, which the caller closes,
// and, unless that is all its own, its processes.
func jailSockets(name string) (ns *nsjail.Jail, process func(pid int) bool, err error) {
	j, err := jail.System.Find(name)
	if err != nil {
		ns, err = otherwiseNamed(name, err)
		return ns, nil, err
	}
	if ns, err = openNetwork(j); err != nil {
		return nil, nil, err
	}
	switch j.Spec().Network {
	case jail.Shared, jail.Host:
		all := j.Processes()
		process = func(pid int) bool { return slices.Contains(all, pid) }
	}
	return ns, process, nil
}

// sockstatFlags are those of sockstat.
type sockstatFlags struct {
	ipv4, ipv6, unix     bool
	listening, connected bool
	jail                 string
	protocols, ports     []string
	numeric, quiet, json bool
}

func (a *app) sockstatCommand() *cobra.Command {
	f := &sockstatFlags{}
	cmd := &cobra.Command{
		Use:   "sockstat [-46cln] [-j JAIL] [-P PROTO] [-p PORTS]",
		Short: "List open sockets and who has them, as FreeBSD's sockstat(1) does",
		Long: `sockstat lists sockets with their processes: of IPv4 and IPv6, and Unix sockets, or
those that the flags choose. A * is any address or any port, and a ? that no process
is known: of other users without CAP_SYS_PTRACE, or that there is none any more.`,
		Example: `  jailtap sockstat -4 -l
  jailtap sockstat -4 -6 -c -j web
  jailtap sockstat -P tcp -p 22,80,8000-8999
  jailtap sockstat --json -l`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(a, cmd.Flags()) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.ipv4, "ipv4", "4", false, "list sockets of IPv4")
	fs.BoolVarP(&f.ipv6, "ipv6", "6", false, "list sockets of IPv6")
	fs.BoolVarP(&f.unix, "unix", "u", false, "list Unix sockets")
	fs.BoolVarP(&f.listening, "listening", "l", false, "list sockets that are not connected")
	fs.BoolVarP(&f.connected, "connected", "c", false, "list sockets that are connected")
	fs.StringVarP(&f.jail, "jail", "j", "", "list the sockets of a `JAIL`; of host, or 0, those of this namespace")
	fs.StringSliceVarP(&f.protocols, "protocols", "P", nil, "list sockets of `PROTO,...`: tcp, udp, raw")
	fs.StringSliceVarP(&f.ports, "ports", "p", nil, "list sockets with a local or remote port among `PORT,FROM-TO,...`")
	fs.BoolVarP(&f.numeric, "numeric", "n", false, "print numbers of users, not their names")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print no heading")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	complete(cmd, "protocols", "tcp", "udp", "raw")
	return cmd
}

func (f *sockstatFlags) run(a *app, fs *pflag.FlagSet) error {
	q, err := f.query(fs)
	if err != nil {
		return err
	}
	ports, err := parsePorts(f.ports)
	if err != nil {
		return err
	}
	if f.jail != "" && f.jail != "0" && f.jail != "host" {
		if q.Namespace, q.Process, err = jailSockets(f.jail); err != nil {
			return err
		}
		defer q.Namespace.Close()
	}
	list, err := nsjail.Sockets(q)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s nsjail.Socket) bool { return !f.wants(s, ports) })
	if f.json {
		return json.NewEncoder(a.stdout).Encode(f.rows(list))
	}
	return printSockets(a.stdout, f.rows(list), f.quiet)
}

// query is what the flags ask for. Without -4, -6 and -u all three are meant,
// but Unix sockets have none of the protocols and ports that may be given.
func (f *sockstatFlags) query(fs *pflag.FlagSet) (nsjail.SocketQuery, error) {
	q := nsjail.SocketQuery{IPv4: f.ipv4, IPv6: f.ipv6, Unix: f.unix}
	for _, p := range f.protocols {
		p = strings.ToLower(p)
		if err := oneOf("protocol", p, "tcp", "udp", "raw"); err != nil {
			return q, err
		}
		q.Protocols = append(q.Protocols, p)
	}
	inetOnly := fs.Changed("protocols") || fs.Changed("ports")
	switch {
	case f.unix && inetOnly:
		return q, usagef("-u and -P or -p contradict one another: Unix sockets have no protocol and no port")
	case !f.ipv4 && !f.ipv6 && !f.unix:
		q.IPv4, q.IPv6, q.Unix = true, true, !inetOnly
	}
	return q, nil
}

// wants reports whether the flags choose a socket. Neither -l nor -c is both.
func (f *sockstatFlags) wants(s nsjail.Socket, ports []portRange) bool {
	if f.listening != f.connected && f.connected != s.Connected() {
		return false
	}
	return len(ports) == 0 || slices.ContainsFunc(ports, func(r portRange) bool {
		return r.has(s.Local.Port()) || r.has(s.Remote.Port())
	})
}

// A portRange is ports from the first to the last, both included.
type portRange struct{ first, last uint16 }

func (r portRange) has(port uint16) bool { return port != 0 && r.first <= port && port <= r.last }

func parsePorts(list []string) ([]portRange, error) {
	var ranges []portRange
	for _, text := range list {
		from, to, isRange := strings.Cut(text, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || first == 0 || first > last {
			return nil, usagef("bad port %q: want 1 to 65535, or FROM-TO", text)
		}
		ranges = append(ranges, portRange{uint16(first), uint16(last)})
	}
	return ranges, nil
}

// A socketRow is a line of the list. Nothing is known of a process that has no
// number.
type socketRow struct {
	User    string `json:"user,omitempty"`
	Command string `json:"command,omitempty"`
	PID     int    `json:"pid,omitempty"`
	FD      *int   `json:"fd,omitempty"`
	Proto   string `json:"proto"`
	Local   string `json:"local"`
	Foreign string `json:"foreign,omitempty"`
}

func (f *sockstatFlags) rows(list []nsjail.Socket) []socketRow {
	rows := []socketRow{}
	users := map[int]string{}
	for _, s := range list {
		r := socketRow{Proto: socketProtocol(s)}
		if s.PID != 0 {
			if _, ok := users[s.UID]; !ok {
				users[s.UID] = f.userName(s.UID)
			}
			r.User, r.Command, r.PID, r.FD = users[s.UID], s.Command, s.PID, &s.FD
		}
		r.Local, r.Foreign = socketAddresses(s)
		rows = append(rows, r)
	}
	return rows
}

func (f *sockstatFlags) userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil && !f.numeric {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// socketProtocol is tcp4, tcp6, or tcp46 for a socket that hears both.
func socketProtocol(s nsjail.Socket) string {
	name := s.Protocol
	if s.IPv4 {
		name += "4"
	}
	if s.IPv6 {
		name += "6"
	}
	return name
}

func socketAddresses(s nsjail.Socket) (local, foreign string) {
	switch {
	case s.IPv4 || s.IPv6:
		return addressText(s.Local), addressText(s.Remote)
	case s.Path != "":
		return s.Path, ""
	case s.Paired && s.PeerPath != "":
		return "-> " + s.PeerPath, ""
	case s.Paired:
		return "-> ??", ""
	}
	return "(not connected)", ""
}

// addressText is ADDRESS:PORT, with a * for what is not set.
func addressText(a netip.AddrPort) string {
	addr, port := a.Addr().String(), strconv.Itoa(int(a.Port()))
	if a.Addr().IsUnspecified() {
		addr = "*"
	}
	if a.Port() == 0 {
		port = "*"
	}
	return addr + ":" + port
}

// printSockets prints FreeBSD 12's columns: USER to PROTO, then the addresses.
// A field that is too long for its column shifts the others, and but for
// commands, of which there are ten characters, none is cut.
func printSockets(w io.Writer, rows []socketRow, quiet bool) error {
	const form = "%-8s %-10s %-5s %-2s %-6s %-21s %-21s"
	if !quiet {
		if _, err := fmt.Fprintf(w, form+"\n", "USER", "COMMAND", "PID", "FD", "PROTO", "LOCAL ADDRESS", "FOREIGN ADDRESS"); err != nil {
			return err
		}
	}
	for _, r := range rows {
		user, command, pid, fd := "?", "?", "?", "?"
		if r.PID != 0 {
			user, command, pid, fd = r.User, fmt.Sprintf("%.10s", r.Command), strconv.Itoa(r.PID), strconv.Itoa(*r.FD)
		}
		line := fmt.Sprintf(form, user, command, pid, fd, r.Proto, r.Local, r.Foreign)
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}
