package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"jailtap/nsjail/world"
)

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
