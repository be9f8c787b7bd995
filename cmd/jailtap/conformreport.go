package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"jailtap/compat/conform"
	"jailtap/compat/vectors"
)

func (a *app) conformReportCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "report",
		Short:   "Print what is the same on FreeBSD and Linux, and what is not",
		Long:    `report prints docs/PARITY.md: tables of what FreeBSD and Linux do with filter programs, frames and requests.`,
		Example: "  jailtap conform report > docs/PARITY.md",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return conform.Report(a.stdout) },
	}
}

func (a *app) conformGenerateCommand() *cobra.Command {
	var seed uint64
	var n int
	var kind string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make vectors",
		Long: `generate prints vectors (JSON lines) that the reference answers. They are for comparing
systems and versions: that the reference itself is right, they do not show. The same
flags give the same vectors.`,
		Example: `  jailtap conform generate --kind scope -n 10000 --seed 7 > more.jsonl
  jailtap conform generate --kind interp | jailtap conform run --engine all -`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if n < 1 {
				return usagef("bad number of vectors %d: want 1 or more", n)
			}
			text, err := vectors.Generate(seed, n, kind)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprint(a.stdout, string(text))
			return err
		},
	}
	cmd.Flags().Uint64Var(&seed, "seed", 1, "another `NUMBER` gives other vectors")
	cmd.Flags().IntVarP(&n, "count", "n", 1000, "how many, `N`")
	cmd.Flags().StringVar(&kind, "kind", "scope", "`interp|scope|accept`")
	complete(cmd, "kind", "interp", "scope", "accept")
	return cmd
}
