package world

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// firstUID is where users begin that the system does not know (login.defs(5)).
const firstUID = 1000

// An account is a line of passwd(5).
type account struct {
	User
	uid, gid int
	gecos    string
}

// users makes passwd, group and shadow, homes and keys.
func (c *collector) users() error {
	accounts, err := c.accounts()
	if err != nil {
		return err
	}
	var passwd, shadow strings.Builder
	groups := map[string]int{"nogroup": 65534, "tty": 5, "shadow": 42, "utmp": 43}
	for _, a := range accounts {
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", a.Name, a.uid, a.gid, a.gecos, a.Home, a.Shell)
		// No password matches "*", but other ways in are open; with "!" sshd(8)
		// takes the account for locked.
		fmt.Fprintf(&shadow, "%s:*:::::::\n", a.Name)
		if a.gid != 65534 {
			groups[a.Name] = a.gid
		}
		if err := c.home(a); err != nil {
			return err
		}
	}
	c.text("etc/passwd", 0o644, passwd.String())
	c.text("etc/shadow", 0o600, shadow.String())
	c.text("etc/group", 0o644, groupFile(groups))
	return nil
}

// groupFile is group(5), by number.
func groupFile(groups map[string]int) string {
	var b strings.Builder
	names := slices.SortedFunc(maps.Keys(groups), func(x, y string) int {
		if groups[x] != groups[y] {
			return groups[x] - groups[y]
		}
		return strings.Compare(x, y)
	})
	for _, name := range names {
		fmt.Fprintf(&b, "%s:x:%d:\n", name, groups[name])
	}
	return b.String()
}

// accounts are root, nobody, and those of the profile, in this order. What a
// later one says of the same user is added to what an earlier one said.
func (c *collector) accounts() ([]account, error) {
	zero, nobody := 0, 65534
	known := c.t.systemUsers()
	all := []account{
		{User: User{Name: "root", UID: &zero, Home: "/root", Shell: c.shell()}},
		{User: User{Name: "nobody", UID: &nobody, Home: "/nonexistent", Shell: "/usr/sbin/nologin"}},
	}
	next := firstUID
	taken := map[int]string{}
	for _, u := range c.p.Users {
		if i := slices.IndexFunc(all, func(a account) bool { return a.Name == u.Name }); i >= 0 {
			all[i].Keys = append(all[i].Keys, u.Keys...)
			continue
		}
		all = append(all, account{User: u})
	}
	for i := range all {
		a := &all[i]
		old, isKnown := known[a.Name]
		switch {
		case a.UID != nil:
			a.uid, a.gid = *a.UID, *a.UID
		case isKnown:
			a.uid, a.gid, a.gecos = old.uid, old.gid, old.gecos
		default:
			for a.uid = next; taken[a.uid] != ""; a.uid++ {
			}
			a.gid, next = a.uid, a.uid+1
		}
		if other := taken[a.uid]; other != "" {
			return nil, fmt.Errorf("users %s and %s have the same uid %d", other, a.Name, a.uid)
		}
		taken[a.uid] = a.Name
		if a.Home == "" {
			a.Home = path.Join("/home", a.Name)
		}
		if a.Shell == "" {
			a.Shell = c.shell()
		}
	}
	return all, nil
}

// shell is the best one that is in the world.
func (c *collector) shell() string {
	for _, shell := range []string{"bin/bash", "usr/bin/bash", "usr/local/bin/bash"} {
		if at, err := c.m.locate(shell); err == nil && c.m[at] != nil {
			return "/" + shell
		}
	}
	return "/bin/sh"
}

// systemUsers are the accounts of the system, by name.
func (t *tree) systemUsers() map[string]account {
	known := map[string]account{}
	text, _ := t.readFile("/etc/passwd") // without one nobody is known
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 7 {
			continue
		}
		uid, err1 := strconv.Atoi(fields[2])
		gid, err2 := strconv.Atoi(fields[3])
		if err1 == nil && err2 == nil {
			known[fields[0]] = account{uid: uid, gid: gid, gecos: fields[4]}
		}
	}
	return known
}

// home makes the home of a user, and the keys with which ssh(1) lets in.
func (c *collector) home(a account) error {
	if strings.HasPrefix(a.Home, "/nonexistent") {
		return nil
	}
	dir, err := c.m.locate(strings.Trim(path.Clean(a.Home), "/"))
	if err != nil {
		return err
	}
	if c.m[dir] == nil && dir != "." {
		c.own(&Entry{Path: dir, Mode: fs.ModeDir | 0o700, UID: a.uid, GID: a.gid})
	}
	if len(a.Keys) == 0 {
		return nil
	}
	keys := strings.Join(a.Keys, "\n")
	ssh := path.Join(dir, ".ssh")
	c.own(&Entry{Path: ssh, Mode: fs.ModeDir | 0o700, UID: a.uid, GID: a.gid})
	c.own(&Entry{Path: path.Join(ssh, "authorized_keys"), Mode: 0o600, UID: a.uid, GID: a.gid, content: strings.TrimSuffix(keys, "\n") + "\n"})
	return nil
}
