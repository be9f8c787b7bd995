package world

import (
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
)

// A Profile says what goes into a world.
type Profile struct {
	Name    string   `yaml:"name" json:"name,omitempty"`
	Include []string `yaml:"include" json:"include,omitempty"` // profiles that are built in

	// Bins are binaries, by name or by path. Their libraries and interpreters
	// come along. A question mark at the end says that the world will do
	// without: "less?".
	Bins []string `yaml:"bins" json:"bins,omitempty"`

	// Files are SRC or SRC:DST, absolute paths. SRC may be a folder, which is
	// copied with all that is in it, or a pattern of path.Match, and may end
	// in a question mark as well, if no DST follows.
	Files []string `yaml:"files" json:"files,omitempty"`

	Users    []User   `yaml:"users" json:"users,omitempty"`
	Services []string `yaml:"services" json:"services,omitempty"` // what /etc/rc starts
	PAM      []string `yaml:"pam" json:"pam,omitempty"`           // services in /etc/pam.d
	Gconv    []string `yaml:"gconv" json:"gconv,omitempty"`       // character sets for iconv(3)

	// Setuid names binaries that keep the setuid and setgid bits; all others lose them.
	Setuid []string `yaml:"setuid" json:"setuid,omitempty"`
}

// A User goes into passwd(5), group(5) and shadow(5). No password is valid.
type User struct {
	Name  string   `yaml:"name" json:"name"`
	UID   *int     `yaml:"uid" json:"uid,omitempty"`     // nil: as on the system, or the next from 1000
	Home  string   `yaml:"home" json:"home,omitempty"`   // "": /home/NAME
	Shell string   `yaml:"shell" json:"shell,omitempty"` // "": /bin/sh
	Keys  []string `yaml:"keys" json:"keys,omitempty"`   // lines of ~/.ssh/authorized_keys
}

// ReadProfile reads a profile in YAML. Words that it does not know are errors.
func ReadProfile(r io.Reader) (Profile, error) {
	var p Profile
	d := yaml.NewDecoder(r, yaml.DisallowUnknownField())
	if err := decode(d, &p); errors.Is(err, io.EOF) {
		return Profile{}, errors.New("empty profile: what goes in is under bins: or files:, such as bins: [sh]")
	} else if err != nil {
		return Profile{}, err
	}
	if err := decode(d, new(Profile)); !errors.Is(err, io.EOF) {
		return Profile{}, errors.New("more than one document: a profile is one")
	}
	return p, p.check()
}

// decode decodes a document. Its errors are one line.
func decode(d *yaml.Decoder, p *Profile) (err error) {
	defer func() { // the decoder trips over some tags
		if trouble := recover(); trouble != nil {
			err = fmt.Errorf("bad YAML: %v", trouble)
		}
	}()
	err = d.Decode(p)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	const inColour, withSource = false, false
	line, _, _ := strings.Cut(yaml.FormatError(err, inColour, withSource), "\n")
	return errors.New(line)
}

// With is p and q in one, under the name of p.
func (p Profile) With(q Profile) Profile {
	p.Include = slices.Concat(p.Include, q.Include)
	p.Bins = slices.Concat(p.Bins, q.Bins)
	p.Files = slices.Concat(p.Files, q.Files)
	p.Users = slices.Concat(p.Users, q.Users)
	p.Services = slices.Concat(p.Services, q.Services)
	p.PAM = slices.Concat(p.PAM, q.PAM)
	p.Gconv = slices.Concat(p.Gconv, q.Gconv)
	p.Setuid = slices.Concat(p.Setuid, q.Setuid)
	return p
}

// expand is the profile with those that it includes.
func (p Profile) expand() (Profile, error) {
	if err := p.check(); err != nil {
		return Profile{}, err
	}
	for _, name := range p.Include {
		q, err := Builtin(name)
		if err != nil {
			return Profile{}, err
		}
		if q, err = q.expand(); err != nil {
			return Profile{}, err
		}
		p = p.With(q)
	}
	return p, nil
}

// pattern is a regular expression that is compiled when it is asked for: most runs of
// a program that has this package never do.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// userName is what useradd(8) takes, which has no colons or line ends.
var userName = pattern(`^[a-z_][a-z0-9_-]{0,31}$`)

func (p Profile) check() error {
	for _, bin := range slices.Concat(p.Bins, p.Setuid) {
		if name, _ := optional(bin); name == "" || strings.Contains(name, "/") && !path.IsAbs(name) {
			return fmt.Errorf("bad binary %q: give a name or an absolute path", bin)
		}
	}
	for _, file := range p.Files {
		if err := parseFile(file).check(); err != nil {
			return fmt.Errorf("bad file %q: %w", file, err)
		}
	}
	for _, name := range slices.Concat(p.PAM, p.Gconv) {
		if name == "" || name[0] == '.' || strings.ContainsAny(name, "/*?[\\") {
			return fmt.Errorf("bad name %q for a PAM service or a character set", name)
		}
	}
	for _, u := range p.Users {
		if err := u.check(); err != nil {
			return err
		}
	}
	return nil
}

func (u User) check() error {
	switch {
	case !userName().MatchString(u.Name):
		return fmt.Errorf("bad user name %q: small letters, digits, _ and -", u.Name)
	case u.UID != nil && (*u.UID < 0 || *u.UID > 1<<31-1):
		return fmt.Errorf("bad uid %d of user %s", *u.UID, u.Name)
	}
	for _, field := range []string{u.Home, u.Shell} {
		if field != "" && !path.IsAbs(field) || strings.ContainsAny(field, ":\n") {
			return fmt.Errorf("bad path %q of user %s: absolute, without colons", field, u.Name)
		}
	}
	for _, key := range u.Keys {
		if strings.ContainsAny(strings.TrimSuffix(key, "\n"), "\n") {
			return fmt.Errorf("bad key of user %s: one line each", u.Name)
		}
	}
	return nil
}

// optional takes the question mark off.
func optional(s string) (name string, isOptional bool) { return strings.CutSuffix(s, "?") }

// A file is one of Profile.Files.
type file struct {
	src, dst string // dst "": as src
	optional bool
}

func parseFile(s string) file {
	var f file
	f.src, f.dst, _ = strings.Cut(s, ":")
	if f.dst == "" {
		f.src, f.optional = optional(f.src)
	}
	return f
}

func (f file) check() error {
	switch {
	case !path.IsAbs(f.src):
		return errors.New("the source is an absolute path")
	case f.dst != "" && (!path.IsAbs(f.dst) || path.Clean(f.dst) == "/"):
		return errors.New("the place behind the colon is an absolute path")
	case f.dst != "" && f.isPattern():
		return errors.New("a pattern has no single place to go to")
	}
	_, err := path.Match(f.src, "")
	return err
}

func (f file) isPattern() bool { return strings.ContainsAny(f.src, "*?[") }
