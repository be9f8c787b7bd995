package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"jailtap/nsjail/world"
)

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
				return fmt.Errorf("%s: %s", args[0], problemCount(len(problems)))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func problemCount(n int) string {
	if n == 1 {
		return "1 problem"
	}
	return fmt.Sprintf("%d problems", n)
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
