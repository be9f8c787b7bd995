package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jailtap/compat/jailconf"
	"jailtap/nsjail/jail"
)

// How long commands of a start may take, and processes to end, if the
// configuration does not say. FreeBSD waits for the former for ever.
const (
	execTimeout = 2 * time.Minute
	stopTimeout = 10 * time.Second
)

// jailSpec makes of a configuration what is to be made. A parameter that is refused
// or unknown, or has a wrong value, is an error.
func jailSpec(config *jailconf.Config, j jailconf.Jail) (jail.Spec, error) {
	for _, f := range config.Check() {
		if f.Jail != j.Name || !f.Wrong() {
			continue
		}
		if f.Err != nil {
			return jail.Spec{}, f.Err
		}
		return jail.Spec{}, fmt.Errorf("%v: jail %s: %s is %s: %s", f.Pos, j.Name, f.Param, f.Fate, f.Reason)
	}
	s := &specReader{config: config, j: j}
	s.spec = jail.Spec{Name: j.Name, Path: s.text("path"), Hostname: s.text("host.hostname"), Domain: s.text("host.domainname")}
	s.spec.JID = s.number("jid")
	s.spec.Persist = s.flag("persist", false)
	s.spec.Devfs, s.spec.Procfs = s.flag("mount.devfs", false), s.flag("mount.procfs", false)
	s.spec.RawSockets = s.flag("allow.raw_sockets", false)
	s.spec.NoReservedPorts = !s.flag("allow.reserved_ports", true)
	s.spec.Limits = jail.Limits{Memory: int64(s.number("limit.memory")), PIDs: int64(s.number("limit.pids")), CPU: s.number("limit.cpu")}
	s.allowBPF()
	s.network()
	s.mounts()
	s.commands()
	for _, p := range j.Params {
		s.spec.Params = append(s.spec.Params, jail.Param{Name: p.Name, Values: p.Values})
	}
	return s.spec, s.err
}

// A specReader keeps the first error.
type specReader struct {
	config *jailconf.Config
	j      jailconf.Jail
	spec   jail.Spec
	err    error
}

func (s *specReader) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *specReader) text(name string) string {
	value, _ := s.j.String(name)
	return value
}

func (s *specReader) flag(name string, unset bool) bool {
	value, set, err := s.j.Bool(name)
	if err != nil {
		s.fail(err)
	}
	if !set {
		return unset
	}
	return value
}

func (s *specReader) number(name string) int {
	n, _, err := s.j.Int(name)
	if err != nil {
		s.fail(err)
	}
	return n
}

// seconds is a time with another value if there is none.
func (s *specReader) seconds(name string, unset time.Duration) time.Duration {
	n, set, err := s.j.Int(name)
	if err != nil {
		s.fail(err)
	}
	if !set {
		return unset
	}
	return time.Duration(n) * time.Second
}

// allowBPF reads whether the jail may capture its own packets.
func (s *specReader) allowBPF() {
	on, err := s.j.AllowsBPF(s.config.Rulesets)
	if err != nil {
		s.fail(err)
	}
	s.spec.BPF = on
}

// network reads which stack and which addresses the jail has. As on FreeBSD a
// jail without a word about it has none.
func (s *specReader) network() {
	addrs, err := s.j.Addresses()
	if err != nil {
		s.fail(err)
	}
	for _, a := range addrs {
		if len(a.Options) > 0 {
			s.fail(fmt.Errorf("%v: jail %s: %v: options of ifconfig(8) are not known: %s", a.Pos, s.j.Name, a.Prefix, strings.Join(a.Options, " ")))
		}
		s.spec.Addresses = append(s.spec.Addresses, jail.Address{Interface: a.Interface, Prefix: a.Prefix})
	}
	ip4, ip6 := s.text("ip4"), s.text("ip6")
	switch {
	case s.j.IsVNET():
		s.spec.Network = jail.VNET
		s.link()
	case ip4 == "inherit" && ip6 == "inherit":
		s.spec.Network = jail.Host
	case ip4 == "inherit" || ip6 == "inherit":
		s.fail(fmt.Errorf("jail %s: ip4 and ip6 are both inherit or neither", s.j.Name))
	case len(addrs) > 0:
		s.spec.Network = jail.Shared
	default:
		s.spec.Network = jail.NoNetwork
	}
	if s.spec.BPF, err = s.j.AllowsBPF(s.config.Rulesets); err != nil {
		s.fail(err)
	}
}

// link reads how a vnet jail is connected.
func (s *specReader) link() {
	s.spec.Link = jail.Link{Bridge: s.text("vnet.bridge"), Interfaces: s.j.Strings("vnet.interface")}
	s.spec.Link.NAT = s.flag("vnet.nat", false)
	for _, text := range s.j.Strings("vnet.gateway") {
		addrs, err := parseAddresses([]string{text})
		if err != nil || len(addrs) != 1 || !addrs[0].IsSingleIP() {
			s.fail(fmt.Errorf("jail %s: vnet.gateway: bad address %q", s.j.Name, text))
			continue
		}
		s.spec.Link.Gateways = append(s.spec.Link.Gateways, addrs[0].Addr())
	}
}

func (s *specReader) commands() {
	c := &s.spec.Commands
	for name, list := range map[string]*[]string{
		"exec.prepare": &c.Prepare, "exec.prestart": &c.Prestart, "exec.created": &c.Created, "exec.start": &c.Start,
		"exec.poststart": &c.Poststart, "exec.prestop": &c.Prestop, "exec.stop": &c.Stop, "exec.poststop": &c.Poststop,
		"exec.release": &c.Release,
	} {
		*list = s.j.Strings(name)
	}
	if p, ok := s.j.Get("command"); ok {
		// On a command line it is a program with arguments, in a file a line for sh(1).
		if c.Command = p.Values; p.Pos.File != fromWords {
			c.Command = []string{"/bin/sh", "-c", strings.Join(p.Values, "; ")}
		}
	}
	c.Clean = s.flag("exec.clean", false)
	c.User = s.text("exec.jail_user")
	c.ConsoleLog = s.text("exec.consolelog")
	c.Timeout = s.seconds("exec.timeout", execTimeout)
	c.StopTimeout = s.seconds("stop.timeout", stopTimeout)
	if !s.spec.Persist && len(c.Start) == 0 && len(c.Command) == 0 {
		s.fail(fmt.Errorf("jail %s would end at once: want persist, exec.start or command", s.j.Name))
	}
}

// fromWords is what jailconf calls the file of a parameter of a command line.
const fromWords = "command line"

// mounts reads mount and mount.fstab, whose lines are those of fstab(5).
func (s *specReader) mounts() {
	for _, line := range s.j.Strings("mount") {
		s.mount("mount", line)
	}
	name := s.text("mount.fstab")
	if name == "" {
		return
	}
	file, err := os.Open(name)
	if err != nil {
		s.fail(fmt.Errorf("jail %s: mount.fstab: %w", s.j.Name, err))
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, 1<<20))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(text) != "" {
			s.mount(fmt.Sprintf("%s:%d", name, n), text)
		}
	}
	if err := lines.Err(); err != nil {
		s.fail(fmt.Errorf("jail %s: %s: %w", s.j.Name, name, err))
	}
}

// fstabEscapes are those of fstab(5).
var fstabEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`)

// mount reads a line: DEVICE DIRECTORY TYPE OPTIONS. The directory is below the
// jail's, and written with it.
func (s *specReader) mount(where, line string) {
	f := strings.Fields(line)
	if len(f) < 3 {
		s.fail(fmt.Errorf("jail %s: %s: bad line %q: want DEVICE DIRECTORY TYPE OPTIONS", s.j.Name, where, line))
		return
	}
	m := jail.Mount{Source: fstabEscapes.Replace(f[0]), Type: f[2]}
	target, err := filepath.Rel(s.spec.Path, fstabEscapes.Replace(f[1]))
	if err != nil || !filepath.IsLocal(target) {
		s.fail(fmt.Errorf("jail %s: %s: %s is not below the jail's path %s", s.j.Name, where, f[1], s.spec.Path))
		return
	}
	m.Target = target
	if len(f) > 3 {
		m.Options = strings.Split(f[3], ",")
	}
	switch m.Type {
	case "devfs", "fdescfs", "procfs", "linprocfs": // the jail has these in their places, and no others
		if !slices.Contains([]string{"dev", "dev/fd", "proc", "compat/linux/proc"}, target) {
			s.fail(fmt.Errorf("jail %s: %s: a %s is mounted on /dev, /dev/fd or /proc only", s.j.Name, where, m.Type))
		}
		return
	case "bind":
		m.Type = "nullfs"
	}
	s.spec.Mounts = append(s.spec.Mounts, m)
}
