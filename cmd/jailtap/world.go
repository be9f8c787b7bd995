package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"jailtap/nsjail/world"
)

func (a *app) worldCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "world",
		Short: "Make small root file systems out of this system",
		Long: `world makes a root file system of the binaries that are asked for: with the libraries
and interpreters that they need, and what else a system must have.`,
		Example: `  jailtap world build --profile interactive -o /jails/web
  jailtap world check /jails/web
  jailtap world update /jails/web`,
		Args: cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("name a command: build, check, list, diff, update")
		},
	}
	cmd.AddCommand(a.worldBuildCommand(), a.worldCheckCommand(), a.worldListCommand(), a.worldDiffCommand(), a.worldUpdateCommand())
	return cmd
}

// worldFlags say what goes into a world.
type worldFlags struct {
	profile  string
	bins     []string
	files    []string
	users    []string
	services []string
	pam      []string
	gconv    []string
	setuid   []string
	system   string
	json     bool
}

func (f *worldFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.profile, "profile", "", "what goes in: `NAME|FILE` ("+strings.Join(world.BuiltinNames(), ", ")+", or a file in YAML)")
	fs.StringArrayVar(&f.bins, "bin", nil, "a binary, `NAME|PATH`, with what it needs")
	fs.StringArrayVar(&f.files, "file", nil, "a file or folder or pattern, `SRC[:DST]`")
	fs.StringArrayVar(&f.users, "user", nil, "a user, `NAME[:UID]`")
	fs.StringArrayVar(&f.services, "service", nil, "what /etc/rc starts, `NAME`: sshd")
	fs.StringArrayVar(&f.pam, "pam", nil, "a PAM service, `NAME`, with its modules")
	fs.StringArrayVar(&f.gconv, "gconv", nil, "a character set for iconv, `NAME`")
	fs.StringArrayVar(&f.setuid, "setuid", nil, "a binary, `NAME|PATH`, that keeps its setuid and setgid bits")
	fs.StringVar(&f.system, "system", "/", "the root of the system that is copied, `DIR`")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	complete(cmd, "profile", world.BuiltinNames()...)
	complete(cmd, "service", "sshd")
}

// isEmpty reports whether nothing was asked for.
func (f *worldFlags) isEmpty() bool {
	return f.profile == "" && len(f.bins)+len(f.files)+len(f.users)+len(f.services)+len(f.pam)+len(f.gconv)+len(f.setuid) == 0
}

// read makes a profile of the flags.
func (f *worldFlags) read() (world.Profile, error) {
	p := world.Profile{Services: f.services, PAM: f.pam, Gconv: f.gconv, Setuid: f.setuid}
	for _, bin := range f.bins {
		if strings.Contains(bin, "/") {
			absolute, err := filepath.Abs(bin)
			if err != nil {
				return p, err
			}
			bin = absolute
		}
		p.Bins = append(p.Bins, bin)
	}
	for _, file := range f.files {
		src, dst, hasDst := strings.Cut(file, ":")
		src, err := filepath.Abs(src)
		if err != nil {
			return p, err
		}
		if hasDst {
			src += ":" + dst
		}
		p.Files = append(p.Files, src)
	}
	for _, text := range f.users {
		u, err := parseWorldUser(text)
		if err != nil {
			return p, err
		}
		p.Users = append(p.Users, u)
	}
	if f.profile == "" {
		return p, nil
	}
	q, err := readWorldProfile(f.profile)
	return q.With(p), err
}

func parseWorldUser(text string) (world.User, error) {
	name, number, hasNumber := strings.Cut(text, ":")
	u := world.User{Name: name}
	if hasNumber {
		uid, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return u, usagef("bad user %q: NAME or NAME:UID", text)
		}
		n := int(uid)
		u.UID = &n
	}
	return u, nil
}

// readWorldProfile finds a profile that is built in or, if the name looks like
// one, in a file.
func readWorldProfile(name string) (world.Profile, error) {
	if !strings.ContainsAny(name, "./") {
		p, err := world.Builtin(name)
		if err != nil {
			return p, usagef("%v, or name a file", err)
		}
		return p, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return world.Profile{}, err
	}
	defer file.Close()
	p, err := world.ReadProfile(file)
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// worldOptions are those of all commands. Jailtap itself is where it runs from.
func (f *worldFlags) options(target string) (world.Options, error) {
	o := world.Options{System: f.system, Target: target}
	if self, err := os.Executable(); err == nil {
		o.Commands = map[string]string{"jailtap": self}
	}
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return o, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return o, usagef("bad SOURCE_DATE_EPOCH %q: seconds since 1970", text)
	}
	o.Epoch = time.Unix(seconds, 0)
	return o, nil
}

// printAll prints a line for each of a list, or the list as JSON.
func printAll[T any](w io.Writer, list []T, asJSON bool, line func(T) string) error {
	if asJSON {
		return json.NewEncoder(w).Encode(list)
	}
	for _, item := range list {
		if _, err := fmt.Fprintln(w, line(item)); err != nil {
			return err
		}
	}
	return nil
}
