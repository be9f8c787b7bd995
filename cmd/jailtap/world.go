package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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

// worldBuildFlags are those of build.
type worldBuildFlags struct {
	worldFlags
	format                       string
	output                       string
	overlay                      string
	update, force, link, tracing bool
}

func (a *app) worldBuildCommand() *cobra.Command {
	f := &worldBuildFlags{}
	cmd := &cobra.Command{
		Use:   "build {--profile NAME|FILE | --bin NAME...} -o PATH",
		Short: "Make a root file system",
		Long: `build makes a folder, an archive or an image of what a profile names, or what --bin
and --file name, or both. It is made beside PATH and renamed when it is whole.

Binaries are searched in ` + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" + `. What they
need is read from their bytes, and nothing is run, but with --trace, which runs
each with --help under strace(1) and brings what it opens. A question mark behind
a name says that the world will do without.

With --link the world has hard links to this system's files. It costs no time and
no space, and what is written to such a file inside is written to the system's:
mount that root read-only.

With --overlay nothing is copied: a world that is ready is mounted at PATH, under a
layer, beside PATH, that takes what is written.`,
		Example: `  jailtap world build --profile interactive -o /jails/web
  jailtap world build --profile minimal --bin curl --bin 'dig?' --user web -o /jails/web
  jailtap world build --profile sshd --file ~/.ssh/id_ed25519.pub:/root/.ssh/authorized_keys -o /jails/shell
  jailtap world build --overlay /worlds/interactive -o /jails/web
  jailtap world build --profile busybox --format initramfs -o busybox.cpio
  jailtap world build --bin /opt/app/server --file '/opt/app/*.so' --format oci -o app`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), a) },
	}
	f.register(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.format, "format", string(world.Dir), "what is made: dir, tar, oci (an image layout), initramfs (cpio), squashfs")
	fs.StringVarP(&f.output, "output", "o", "", "where it is made, `PATH`")
	fs.BoolVar(&f.update, "update", false, "bring what has changed into a folder that is there")
	fs.BoolVar(&f.force, "force", false, "replace what is there")
	fs.BoolVar(&f.link, "link", false, "make hard links to this system's files")
	fs.BoolVar(&f.tracing, "trace", false, "run the binaries with --help, and bring what they open")
	fs.StringVar(&f.overlay, "overlay", "", "mount a world that is ready, `DIR`, under a layer of its own")
	complete(cmd, "format", "dir", "tar", "oci", "initramfs", "squashfs")
	return cmd
}

func (f *worldBuildFlags) run(ctx context.Context, a *app) error {
	if f.overlay != "" {
		return f.runOverlay(a)
	}
	switch {
	case f.isEmpty():
		return usagef("say what goes in with --profile NAME|FILE or --bin NAME")
	case f.output == "":
		return usagef("say where to with -o PATH")
	case f.update && f.force:
		return usagef("--update and --force exclude one another")
	case f.update && f.format != string(world.Dir):
		return usagef("--update is about a folder, not %s", f.format)
	case f.link && f.format != string(world.Dir):
		return usagef("--link is about a folder, not %s", f.format)
	}
	if !isWorldFormat(f.format) {
		return usagef("unknown format %q: known are %v", f.format, world.Formats)
	}
	p, err := f.read()
	if err != nil {
		return err
	}
	o, err := f.options(f.output)
	if err != nil {
		return err
	}
	o.Format, o.Update, o.Force, o.Link, o.Trace = world.Format(f.format), f.update, f.force, f.link, f.tracing
	return a.buildWorld(ctx, p, o, f.json)
}

func (f *worldBuildFlags) runOverlay(a *app) error {
	switch {
	case !f.isEmpty() || f.update || f.force || f.link || f.tracing || f.format != string(world.Dir):
		return usagef("--overlay takes a world as it is: with -o PATH, and --json, and nothing else")
	case f.output == "":
		return usagef("say where to with -o PATH")
	}
	r, err := world.Overlay(f.overlay, f.output)
	if err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(a.stdout).Encode(r)
	}
	a.say("%s: %s under a layer, in %s", f.output, f.overlay, r.Elapsed.Round(100*time.Microsecond))
	return nil
}

func isWorldFormat(name string) bool {
	for _, f := range world.Formats {
		if string(f) == name {
			return true
		}
	}
	return false
}

// buildWorld builds or updates, and tells what came of it.
func (a *app) buildWorld(ctx context.Context, p world.Profile, o world.Options, asJSON bool) error {
	var mu sync.Mutex
	var shown *bar
	o.Progress = func(done, of int) {
		mu.Lock()
		defer mu.Unlock()
		if shown == nil {
			shown = newBar(a.stderr, o.Target, of)
		}
		shown.at(done)
	}
	r, err := world.Build(ctx, p, o)
	if shown != nil {
		shown.clear()
	}
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(r)
	}
	a.sayList("not on this system, and left out", r.Absent)
	a.sayList("without setuid and setgid bits, which --setuid keeps", r.Dropped)
	a.sayList("brought", r.Changed)
	a.sayList("kept, since the jail has changed it", r.Kept)
	a.say("%s: %s", o.Target, r)
	return nil
}

func (a *app) sayList(what string, list []string) {
	if len(list) > 0 {
		a.say("%s: %s", what, strings.Join(list, ", "))
	}
}

func (a *app) worldUpdateCommand() *cobra.Command {
	f := &worldFlags{}
	cmd := &cobra.Command{
		Use:   "update DIR",
		Short: "Bring what has changed on this system into a world",
		Long: `update brings changed binaries and libraries, and new ones that they need, into a
folder that build has made. What the jail has made or changed stays as it is. What
was put in is recorded in a file beside the folder.

Without flags that name a profile the world has what it was built of.`,
		Example: `  jailtap world update /jails/web
  jailtap world update --profile interactive --bin curl /jails/web`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, o, err := f.of(args[0])
			if err != nil {
				return err
			}
			if _, err := os.Stat(o.Target); err != nil {
				return err
			}
			o.Update = true
			return a.buildWorld(cmd.Context(), p, o, f.json)
		},
	}
	f.register(cmd)
	return cmd
}

// of is the profile of a world that is there: what the flags say or what it
// was built of.
func (f *worldFlags) of(dir string) (world.Profile, world.Options, error) {
	o, err := f.options(dir)
	if err != nil {
		return world.Profile{}, o, err
	}
	if f.isEmpty() {
		p, err := world.Recorded(dir)
		return p, o, err
	}
	p, err := f.read()
	return p, o, err
}

func (a *app) worldCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Tell what is missing in a world",
		Long: `check looks for libraries and interpreters that are not there and for links that lead
nowhere. Nothing of the world is run. The exit status is 1 if there is a problem.`,
		Example: `  jailtap world check /jails/web
  jailtap world check --json /jails/web`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			problems, err := world.Check(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := printAll(a.stdout, problems, asJSON, world.Problem.String); err != nil {
				return err
			}
			if len(problems) > 0 {
				return fmt.Errorf("%s: %d problems", args[0], len(problems))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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

func (a *app) worldDiffCommand() *cobra.Command {
	f := &worldFlags{}
	cmd := &cobra.Command{
		Use:   "diff DIR [OTHER]",
		Short: "Tell how a world differs from this system, or from another one",
		Long: `diff tells what an update of a world would do, a line for each file:
  added    the update brings it
  changed  the update brings it anew
  own      the jail has made or changed it, and the update keeps it

With two folders it tells how the second differs from the first: added, changed,
removed.`,
		Example: `  jailtap world diff /jails/web
  jailtap world diff --json /jails/web
  jailtap world diff /jails/web /jails/mail`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := f.diff(cmd.Context(), args)
			if err != nil {
				return err
			}
			return printAll(a.stdout, changes, f.json, func(c world.Change) string {
				return fmt.Sprintf("%-7s %s", c.What, c.Path)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func (f *worldFlags) diff(ctx context.Context, args []string) ([]world.Change, error) {
	if len(args) == 2 {
		if !f.isEmpty() {
			return nil, usagef("two folders are compared as they are, without a profile")
		}
		return world.Compare(ctx, args[0], args[1])
	}
	p, o, err := f.of(args[0])
	if err != nil {
		return nil, err
	}
	return world.Diff(ctx, p, o)
}

// A worldLine is what list prints of an entry.
type worldLine struct {
	Path string `json:"path"`
	Mode string `json:"mode"`
	UID  int    `json:"uid"`
	GID  int    `json:"gid"`
	Size int64  `json:"size"`
	Link string `json:"link,omitempty"`
}

func (l worldLine) String() string {
	text := fmt.Sprintf("%s %5d %5d %10d %s", l.Mode, l.UID, l.GID, l.Size, l.Path)
	if l.Link != "" {
		text += " -> " + l.Link
	}
	return text
}

func (a *app) worldListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list DIR",
		Short: "List what is in a world, with sizes",
		Example: `  jailtap world list /jails/web
  jailtap world list /jails/web | sort -nrk 4 | head
  jailtap world list --json /jails/web`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, err := world.List(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			lines, total, files := []worldLine{}, int64(0), 0
			for _, e := range entries {
				lines = append(lines, worldLine{"/" + e.Path, e.Mode.String(), e.UID, e.GID, e.Size, e.Link})
				total += e.Size
				if !e.Mode.IsDir() {
					files++
				}
			}
			err = printAll(a.stdout, lines, asJSON, worldLine.String)
			if !asJSON {
				a.say("%s: %d files, %s", args[0], files, world.Megabytes(total))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
