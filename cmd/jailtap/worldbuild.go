package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"jailtap/nsjail/world"
)

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
	if !slices.Contains(world.Formats, world.Format(f.format)) {
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

// buildWorld builds or updates, and tells what came of it.
func (a *app) buildWorld(ctx context.Context, p world.Profile, o world.Options, asJSON bool) error {
	clear := a.showProgress(&o)
	r, err := world.Build(ctx, p, o)
	clear()
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

// showProgress shows a bar while a world is built; clear takes it away.
func (a *app) showProgress(o *world.Options) (clear func()) {
	var mu sync.Mutex
	var shown *bar
	label := o.Target
	o.Progress = func(done, of int) {
		mu.Lock()
		defer mu.Unlock()
		if shown == nil {
			shown = newBar(a.stderr, label, of)
		}
		shown.at(done)
	}
	return func() {
		if shown != nil {
			shown.clear()
		}
	}
}
