package jailconf

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ParseRC reads the jail_* variables of an rc.conf(5), as FreeBSD's
// /etc/rc.d/jail does. The name is for messages, and its folder is where the
// other files are that this one leads to; open opens these, or os.Open if it is
// nil. The error is of type [Errors], or from r.
//
// Jails with jail_NAME_rootdir and jail_NAME_hostname come from the variables.
// Others that jail_list names, or all if there is no jail_list, come from
// jail.NAME.conf, jail.conf.d/NAME.conf or jail.conf, the first that exists.
//
// Where the manual and /etc/rc.d/jail differ this is as the manual has it:
// jail_NAME_mount_enable mounts what /etc/fstab.NAME has, and does not allow to
// mount inside.
func ParseRC(name string, r io.Reader, open func(path string) (io.ReadCloser, error)) (*Config, error) {
	text, err := readAll(name, r)
	if err != nil {
		return nil, err
	}
	if open == nil {
		open = func(path string) (io.ReadCloser, error) { return os.Open(path) }
	}
	vars, errs := readShell(name, text)
	c := &rcReader{file: name, vars: vars, errs: errs, open: open, used: map[string]bool{}}
	if len(errs) == 0 {
		c.jails()
	}
	if err := c.errs.sorted(); err != nil {
		return nil, err
	}
	return &c.config, nil
}

// IsRC reports whether a text is an rc.conf rather than a jail.conf: it begins a
// line with an assignment as a shell has them, of a variable that is the shell's
// own or one of the jails, and opens no block.
func IsRC(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		name, _, ok := strings.Cut(line, "=")
		if ok && (strings.HasPrefix(name, "jail_") || strings.HasSuffix(name, "_enable")) && isShellName(name) {
			return true
		}
	}
	return false
}

func isShellName(name string) bool {
	for i := range len(name) {
		if !isWordByte(name[i], i > 0) {
			return false
		}
	}
	return name != ""
}

// An rcReader makes jails out of variables.
type rcReader struct {
	file   string
	vars   map[string]shellVar
	errs   Errors
	open   func(string) (io.ReadCloser, error)
	config Config
	used   map[string]bool // the variables that had a meaning
	files  map[string]*Config
}

func (c *rcReader) failAt(pos Position, token, format string, args ...any) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, &Error{pos, token, fmt.Sprintf(format, args...)})
	}
}

// variable is the value of a variable; one that is empty counts as not set, as
// in rc.subr(8).
func (c *rcReader) variable(name string) (shellVar, bool) {
	v := c.vars[name]
	c.used[name] = true
	return v, v.value != ""
}

// jails makes those that the file names, and all of jail.conf if it names none.
func (c *rcReader) jails() {
	list, listed := c.variable("jail_list")
	names := strings.Fields(list.value)
	for i, name := range names {
		names[i] = strings.Map(dotless, name)
	}
	if listed {
		c.config.List = names
	}
	all := c.named(names)
	for _, name := range all {
		if len(c.errs) < maxErrors {
			c.jail(name, list.pos)
		}
	}
	if len(all) == 0 {
		c.all()
	}
	c.leftover()
}

// dotless is for names of jails: /etc/rc.d/jail has no dots and slashes there.
func dotless(r rune) rune {
	if r == '.' || r == '/' {
		return '_'
	}
	return r
}

// named adds the jails that jail_list does not have, but that have variables.
func (c *rcReader) named(listed []string) []string {
	have := map[string]bool{}
	var names []string
	for _, name := range listed {
		if !have[shellName(name)] {
			have[shellName(name)] = true
			names = append(names, name)
		}
	}
	for _, variable := range slices.Sorted(maps.Keys(c.vars)) {
		rest, ok := strings.CutPrefix(variable, "jail_")
		name, ok2 := strings.CutSuffix(rest, "_rootdir")
		if ok && ok2 && name != "" && !have[name] {
			names = append(names, name)
		}
	}
	return names
}

// shellName is a jail's name as it stands in the names of variables.
func shellName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && isWordByte(byte(r), true) {
			return r
		}
		return '_'
	}, name)
}

func (c *rcReader) jail(name string, listed Position) {
	rootdir, ok := c.variable("jail_" + shellName(name) + "_rootdir")
	_, ok2 := c.variable("jail_" + shellName(name) + "_hostname")
	if !ok || !ok2 {
		pos := listed
		if ok {
			pos = rootdir.pos
		}
		c.fromFiles(name, pos)
		return
	}
	if why := badName(name); why != "" || isWild(name) {
		c.failAt(rootdir.pos, name, "bad name %q of a jail: want letters, digits, - and _", name)
		return
	}
	j := &rcJail{rcReader: c, name: name, prefix: "jail_" + shellName(name) + "_", jail: Jail{Name: name, Pos: rootdir.pos}}
	j.make()
	c.config.Jails = append(c.config.Jails, j.jail)
}

// beside is the path of a file in the folder of this one.
func (c *rcReader) beside(name string) string { return filepath.Join(filepath.Dir(c.file), name) }

// jailConf is the path of the file with all jails.
func (c *rcReader) jailConf() string {
	if v, ok := c.variable("jail_conf"); ok {
		return v.value
	}
	return c.beside("jail.conf")
}

// fromFiles takes a jail from the first of the files that there is.
func (c *rcReader) fromFiles(name string, pos Position) {
	own, ok := c.variable("jail_" + shellName(name) + "_conf")
	if !ok {
		own.value = c.beside("jail." + name + ".conf")
	}
	for _, path := range []string{own.value, c.beside("jail.conf.d/" + name + ".conf"), c.jailConf()} {
		config, found := c.read(path)
		if !found {
			continue
		}
		if j, ok := config.Jail(name); ok {
			c.config.Jails = append(c.config.Jails, j)
		} else if len(c.errs) == 0 {
			c.failAt(pos, name, "jail %s: %s does not have it", name, path)
		}
		return
	}
	c.failAt(pos, name, "jail %s: there is neither jail_%s_rootdir with jail_%[2]s_hostname nor a file jail.conf", name, shellName(name))
}

// all takes the jails of jail.conf.
func (c *rcReader) all() {
	if config, ok := c.read(c.jailConf()); ok {
		c.config.Jails = config.Jails
	}
}

// read parses a file if it is there, once.
func (c *rcReader) read(path string) (*Config, bool) {
	if config, ok := c.files[path]; ok {
		return config, true
	}
	file, err := c.open(path)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	config, err := newParser(c.open, filepath.Glob).config(path, file)
	if errs, ok := err.(Errors); ok {
		c.errs = append(c.errs, errs...)
	} else if err != nil {
		c.failAt(Position{path, 1, 1}, "", "%v", err)
	}
	if config == nil {
		config = &Config{}
	}
	if c.files == nil {
		c.files = map[string]*Config{}
	}
	c.files[path] = config
	return config, true
}

// ofService are variables that are about starting at boot, and not about what
// a jail is.
var ofService = []string{"enable", "list", "conf", "confwarn", "parallel_start", "reverse_stop", "program", "consolecmd", "jexec", "jls"}

// leftover gives each jail what is left of its variables, so that a report can
// say that they are unknown.
func (c *rcReader) leftover() {
	owners := map[string]*Jail{}
	for i := range c.config.Jails {
		owners[shellName(c.config.Jails[i].Name)] = &c.config.Jails[i]
	}
	for _, variable := range slices.Sorted(maps.Keys(c.vars)) {
		v := c.vars[variable]
		rest, ok := strings.CutPrefix(variable, "jail_")
		if !ok || c.used[variable] || v.value == "" || slices.Contains(ofService, rest) {
			continue
		}
		param := Param{variable, []string{v.value}, v.pos}
		owner, rest := ownerOf(owners, rest)
		switch {
		case slices.Contains(ofService, rest):
		case owner == nil:
			c.config.Unowned = append(c.config.Unowned, param)
		case len(owner.Params) < maxParams:
			owner.Params = append(owner.Params, param)
		default:
			c.failAt(v.pos, variable, "jail %s has more than %d variables, which no jail has", owner.Name, maxParams)
		}
	}
}

// ownerOf is the jail that a variable belongs to, the one with the longest name
// that fits, and what of the variable's name is left.
func ownerOf(owners map[string]*Jail, name string) (*Jail, string) {
	for i := len(name) - 1; i > 0; i-- {
		if owner := owners[name[:i]]; name[i] == '_' && owner != nil {
			return owner, name[i+1:]
		}
	}
	return nil, name
}

// An rcJail makes one jail, as extract_var and parse_options of
// /etc/rc.d/jail do.
type rcJail struct {
	*rcReader
	name   string
	prefix string // of its variables
	jail   Jail
}

// make sets the parameters in the order of /etc/rc.d/jail.
func (j *rcJail) make() {
	j.set("name", j.jail.Pos, j.name)
	j.text("hostname", "host.hostname")
	j.text("rootdir", "path")
	j.network()
	j.set("exec.clean", j.jail.Pos)
	j.set("exec.system_user", j.jail.Pos, "root")
	j.set("exec.jail_user", j.jail.Pos, "root")
	j.commands()
	j.text("consolelog", "exec.consolelog")
	j.mounts()
	j.flag("set_hostname_allow", "allow.set_hostname", false)
	j.flag("sysvipc_allow", "allow.sysvipc", false)
	j.set("enforce_statfs", j.jail.Pos, "2")
	j.text("enforce_statfs", "enforce_statfs")
	j.text("osreldate", "osreldate")
	j.text("osrelease", "osrelease")
	j.flags()
	j.parameters()
}

// own is a variable of the jail alone, and either is one of the jail or, if it
// has none, of all jails.
func (j *rcJail) own(name string) (shellVar, bool) { return j.variable(j.prefix + name) }

func (j *rcJail) either(name string) (shellVar, bool) {
	all, ok2 := j.variable("jail_" + name)
	if v, ok := j.own(name); ok {
		return v, true
	}
	return all, ok2
}

// set replaces a parameter, and add adds to its values.
func (j *rcJail) set(param string, pos Position, values ...string) {
	for i, p := range j.jail.Params {
		if sameParam(p.Name, param) {
			j.jail.Params[i] = Param{param, values, pos}
			return
		}
	}
	j.jail.Params = append(j.jail.Params, Param{param, values, pos})
}

func (j *rcJail) add(param string, pos Position, value string) {
	for i, p := range j.jail.Params {
		if p.Name == param {
			j.jail.Params[i].Values = append(p.Values, value)
			return
		}
	}
	j.set(param, pos, value)
}

func (j *rcJail) text(name, param string) {
	if v, ok := j.either(name); ok {
		j.set(param, v.pos, v.value)
	}
}

// yes reads a boolean variable of the jail or of all (checkyesno of rc.subr(8)).
func (j *rcJail) yes(name string, fallback bool) (bool, Position) {
	v, ok := j.either(name)
	if !ok {
		return fallback, j.jail.Pos
	}
	switch strings.ToUpper(v.value) {
	case "YES", "TRUE", "ON", "1":
		return true, v.pos
	case "NO", "FALSE", "OFF", "0":
		return false, v.pos
	}
	j.failAt(v.pos, v.value, "%s: bad value %q: want YES or NO", name, v.value)
	return fallback, v.pos
}

func (j *rcJail) flag(name, param string, fallback bool) {
	on, pos := j.yes(name, fallback)
	j.set(param, pos, map[bool]string{true: "1", false: "0"}[on])
}

// numbered adds the values of NAME0, NAME1 and so on; the first may be missing.
func (j *rcJail) numbered(name, param string) {
	for i := 0; ; i++ {
		v, ok := j.either(name + strconv.Itoa(i))
		if ok {
			j.add(param, v.pos, v.value)
		} else if i > 0 {
			return
		}
	}
}

// network: without an address the jail has a network stack of its own.
func (j *rcJail) network() {
	ip, ok := j.own("ip")
	if !ok {
		j.set("vnet", j.jail.Pos)
		if v, ok := j.either("vnet_interface"); ok {
			j.set("vnet.interface", v.pos, strings.Fields(v.value)...)
		}
		return
	}
	j.text("interface", "interface")
	iface, _ := j.jail.String("interface")
	j.addresses(ip, iface)
	for i := 0; ; i++ {
		v, ok := j.own("ip_multi" + strconv.Itoa(i))
		if !ok {
			break
		}
		j.addresses(v, iface)
	}
	j.text("fib", "exec.fib")
	only, pos := j.yes("socket_unixiproute_only", true)
	j.set("allow.raw_sockets", pos, map[bool]string{true: "0", false: "1"}[only])
}

// addresses adds the addresses of a list with commas, each with its interface
// and mask.
func (j *rcJail) addresses(v shellVar, iface string) {
	for text := range strings.SplitSeq(v.value, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		name := "ip4.addr"
		if strings.Contains(text, ":") {
			name = "ip6.addr"
		}
		a, err := parseAddress(Param{Name: name, Pos: v.pos}, text)
		if err != nil {
			j.errs = append(j.errs, err)
			continue
		}
		if a.Interface == "" {
			a.Interface = iface
		}
		value := strings.Join(append([]string{a.Prefix.String()}, a.Options...), " ")
		if a.Interface != "" {
			value = a.Interface + "|" + value
		}
		j.add(name, v.pos, value)
	}
}

func (j *rcJail) commands() {
	j.numbered("exec_prestart", "exec.prestart")
	j.numbered("exec_poststart", "exec.poststart")
	j.numbered("exec_prestop", "exec.prestop")
	j.numbered("exec_poststop", "exec.poststop")
	start, hasStart := j.own("exec_start")
	stop, hasStop := j.own("exec_stop")
	if simple, ok := j.own("exec"); ok {
		start, stop, hasStop = simple, shellVar{}, false
	} else if !hasStart {
		start = shellVar{"/bin/sh /etc/rc", j.jail.Pos}
		if !hasStop {
			stop, hasStop = shellVar{"/bin/sh /etc/rc.shutdown jail", j.jail.Pos}, true
		}
	}
	j.add("exec.start", start.pos, start.value)
	j.numbered("exec_afterstart", "exec.start")
	if hasStop {
		j.set("exec.stop", stop.pos, stop.value)
	}
}

func (j *rcJail) mounts() {
	j.fstab()
	for _, fs := range []string{"devfs", "fdescfs", "procfs"} {
		if on, pos := j.yes(fs+"_enable", false); on {
			j.set("mount."+fs, pos)
		}
	}
	ruleset, ok := j.either("devfs_ruleset")
	if _, mounts := j.jail.Get("mount.devfs"); mounts && ok && ruleset.value != "devfsrules_jail" { // that one is the default
		j.set("devfs_ruleset", ruleset.pos, ruleset.value)
	}
}

// fstab is /etc/fstab.NAME if there is one, or as the variables say. One that is
// named, or wanted by mount_enable, must be there.
func (j *rcJail) fstab() {
	wanted, pos := j.yes("mount_enable", false)
	v, named := j.either("fstab")
	if !named {
		v = shellVar{j.beside("fstab." + j.name), pos}
	}
	file, err := j.open(v.value)
	if err == nil {
		file.Close()
		j.set("mount.fstab", v.pos, v.value)
	} else if named || wanted {
		j.failAt(v.pos, v.value, "jail %s: fstab: %v", j.name, err)
	}
}

// flags are the options of the jail command in jail_NAME_flags.
func (j *rcJail) flags() {
	v, ok := j.either("flags")
	words := strings.Fields(v.value)
	for ok && len(words) > 0 {
		option := words[0]
		words = words[1:]
		param := map[string]string{"-l": "exec.clean", "-d": "allow.dying", "-h": "ip_hostname", "-U": "exec.jail_user", "-u": "exec.jail_user", "-s": "securelevel"}[option]
		switch {
		case option == "-i" || option == "-q" || option == "-v":
		case param == "" || len(words) == 0 && option >= "-s":
			j.failAt(v.pos, option, "jail %s: flags: %q is not known, or lacks its value: want -l, -U USER, -s LEVEL, -d, -h", j.name, option)
			return
		case option == "-l" || option == "-d" || option == "-h":
			j.set(param, v.pos)
		default:
			j.set(param, v.pos, words[0])
			if words = words[1:]; option == "-u" {
				j.set("exec.system_jail_user", v.pos)
			}
		}
	}
}

// parameters are words of jail.conf(5), each without its semicolon or with it.
func (j *rcJail) parameters() {
	v, _ := j.either("parameters")
	words := strings.Fields(v.value)
	if len(words) > maxParams {
		j.failAt(v.pos, "", "jail %s: parameters: more than %d, which no jail has", j.name, maxParams)
		return
	}
	for _, word := range words {
		p := newParser(nil, nil)
		f := &fileParser{parser: p, lex: newLexer(v.pos.File, strings.TrimSuffix(word, ";")+";", p.fail)}
		f.next()
		b := &block{}
		f.statement(b, "", 0)
		for _, param := range b.params {
			j.parameter(param, v.pos)
		}
		for _, e := range p.errs {
			j.failAt(v.pos, word, "jail %s: parameters: %q: %s", j.name, word, e.Msg)
		}
	}
}

func (j *rcJail) parameter(param rawParam, pos Position) {
	var values []string
	for _, value := range param.values {
		text := ""
		for _, piece := range value {
			text += piece.text
		}
		values = append(values, text)
	}
	if old, ok := j.jail.Get(param.name); ok && param.appends {
		values = append(slices.Clone(old.Values), values...)
	}
	j.set(param.name, pos, values...)
}
