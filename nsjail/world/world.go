// Package world makes small root file systems out of a live system: the
// binaries that are asked for, what these need, and a skeleton around them.
//
//	p, err := world.Builtin("interactive")
//	result, err := world.Build(ctx, p, world.Options{Target: "/jails/web"})
//
// # How
//
// A profile is resolved to a manifest, a list of what goes in, before anything
// is written. What a binary needs is read from its bytes, by the rules of the
// loader that it names; no file of the system is run to find out, except with
// Options.Trace. Then one of the writers makes a folder, an archive or an image
// of the manifest, beside its target, and renames it when it is whole.
//
// # Security considerations
//
// A folder that is a world belongs to whoever is in it. Check, List, Diff and
// Update expect the worst of it: links lead nowhere out of it, and what Update
// may replace is recorded beside the folder, where its inmates do not come.
// The folder that Target is in must be safe from others than the caller.
//
// The system that is copied is trusted with what it says, and a profile with
// what it names: a profile can name /etc/shadow. Options.System confines the
// reading to a folder.
//
// With Options.Link the world and the system share their files: what is
// written to one of them inside is written to the system's. Such a world is
// for roots that are mounted read-only.
//
// Setuid and setgid bits are dropped where a profile does not ask for them.
// File capabilities stay.
package world

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A Format is what a world is written as.
type Format string

// The formats.
const (
	Dir       Format = "dir"       // a folder
	Tar       Format = "tar"       // pax, the same bytes for the same input
	OCI       Format = "oci"       // an OCI image layout: a folder with one image of one layer
	Initramfs Format = "initramfs" // a cpio archive (newc) with /init, which boots to a shell
	Squashfs  Format = "squashfs"  // by mksquashfs(1) 4.5 or later
)

// Formats are all of them.
var Formats = []Format{Dir, Tar, OCI, Initramfs, Squashfs}

// Options say where a world comes from and where it goes.
type Options struct {
	System string // the root of the system that is copied; "": /
	Target string // what is made
	Format Format // "": Dir

	Update bool // bring what has changed into a folder that is there
	Force  bool // replace what is there
	Link   bool // make hard links to the system's files where modes allow it
	Trace  bool // run each binary with --help under strace(1), and bring what it opens

	// Commands are binaries that are not searched in the system: where they
	// are, outside of System, by name. They go to /usr/local/bin.
	Commands map[string]string

	// Epoch is the time of what has none of its own, and the latest time of
	// all; zero: that of the newest file that is copied.
	Epoch time.Time

	// Progress hears, from several goroutines, how many files are done; nil: nobody.
	Progress func(done, of int)
}

// A Result says what was made.
type Result struct {
	Files   int           `json:"files"` // all but folders
	Bytes   int64         `json:"bytes"` // in regular files
	Elapsed time.Duration `json:"elapsed_ns"`
	Absent  []string      `json:"absent,omitempty"`  // optional, and not on the system
	Dropped []string      `json:"dropped,omitempty"` // lost a setuid or setgid bit
	Changed []string      `json:"changed,omitempty"` // brought in by an update
	Kept    []string      `json:"kept,omitempty"`    // not updated: the jail has changed it
}

// Build makes a world. Its errors name all that is missing; then, as when it
// is interrupted or the disk is full, there is no target.
//
// As another user than root it makes folders that are all the caller's, without
// devices and file capabilities; archives are the same.
func Build(ctx context.Context, p Profile, o Options) (Result, error) {
	start := time.Now()
	o, err := o.withDefaults()
	if err != nil {
		return Result{}, err
	}
	t, err := openTree(o.System)
	if err != nil {
		return Result{}, err
	}
	defer t.Close()
	c, err := collect(ctx, t, p, o)
	if err != nil {
		return Result{}, err
	}
	defer c.close()
	r := c.result()
	if o.Format == Dir && o.Update && exists(o.Target) {
		r.Changed, r.Kept, err = update(ctx, c, o)
	} else {
		err = o.make(ctx, c)
	}
	r.Elapsed = time.Since(start)
	return r, err
}

func (o Options) withDefaults() (Options, error) {
	if o.System == "" {
		o.System = "/"
	}
	if o.Format == "" {
		o.Format = Dir
	}
	switch {
	case runtime.GOOS == "windows":
		return o, unsupported("a world")
	case !slices.Contains(Formats, o.Format):
		return o, fmt.Errorf("unknown format %q: known are %v", o.Format, Formats)
	case o.Target == "":
		return o, fmt.Errorf("no target")
	case o.Update && (o.Force || o.Format != Dir):
		return o, fmt.Errorf("an update is of a folder that is there, and replaces nothing else")
	case o.Link && o.Format != Dir:
		return o, fmt.Errorf("hard links to the system need a folder, not %s", o.Format)
	}
	return o, nil
}

// make writes to the target.
func (o Options) make(ctx context.Context, c *collector) error {
	switch o.Format {
	case Dir:
		return makeDir(ctx, c, o)
	case OCI:
		return makeOCI(ctx, c, o)
	case Initramfs:
		return makeFile(o, func(w *target) error { return writeInitramfs(ctx, w.file, c) })
	case Squashfs:
		return makeSquashfs(ctx, c, o)
	}
	return makeFile(o, func(w *target) error { return writeTar(ctx, w.file, c) })
}

// result sums up the manifest.
func (c *collector) result() Result {
	r := Result{Absent: c.absent, Dropped: c.dropped}
	for _, e := range c.m {
		if !e.Mode.IsDir() {
			r.Files++
			r.Bytes += e.Size
		}
	}
	slices.Sort(r.Absent)
	slices.Sort(r.Dropped)
	return r
}

// String is the closing line: files, bytes, time.
func (r Result) String() string {
	return fmt.Sprintf("%d files, %s in %s", r.Files, Megabytes(r.Bytes), r.Elapsed.Round(100*time.Microsecond))
}

// Megabytes prints a size for people, in units of 1000.
func Megabytes(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000*1000:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/1e3), ".0") + " kB"
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
