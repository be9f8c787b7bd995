package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"jailtap/compat/conform"
	"jailtap/compat/conform/kernel"
	"jailtap/compat/vectors"
)

func (a *app) conformRecordCommand() *cobra.Command {
	f := &conformFlags{}
	var output string
	cmd := &cobra.Command{
		Use:   "record [flags] FILE...",
		Short: "Write down what this system answers",
		Long: `record writes a verdict file: JSON lines, the first of which says which system,
engine and dialect answered, and which vectors. Two such files of the same vectors can
be compared with diff. In dialect freebsd the reference is that of received packets.`,
		Example: `  jailtap conform record --engine cbpf -o linux.verdicts vectors.jsonl.gz
  jailtap conform record --engine native vectors.jsonl.gz > freebsd.verdicts`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.record(cmd.Context(), a, output, args) },
	}
	engines := append([]string{"vm"}, kernel.Names()...)
	f.register(cmd, engines...)
	cmd.Flags().StringVarP(&output, "output", "o", "-", "write to `FILE`")
	return cmd
}

func (f *conformFlags) record(ctx context.Context, a *app, output string, args []string) error {
	dialect, err := f.check(args, append([]string{"vm"}, kernel.Names()...))
	if err != nil {
		return err
	}
	set, err := a.readVectors(args)
	if err != nil {
		return err
	}
	engines, err := openEngine(f.engine, dialect)
	if err != nil {
		return fmt.Errorf("engine %s: %w", f.engine, err)
	}
	e := engines[len(engines)-1]
	defer e.Close()
	if output == "-" {
		return a.recordTo(ctx, nil, set, e)
	}
	file, err := create(output)
	if err != nil {
		return err
	}
	if err := a.recordTo(ctx, file, set, e); err != nil {
		file.discard()
		return err
	}
	return file.Close()
}

func (a *app) recordTo(ctx context.Context, file *outFile, set *vectors.Set, e conform.Engine) error {
	bar := newBar(a.stderr, e.Name(), set.Len()-len(set.Kernel))
	defer bar.clear()
	w := a.stdout
	if file != nil {
		w = file
	}
	return conform.RecordAll(ctx, w, conform.Header{System: system()}, set, e, bar.at)
}

func (a *app) conformDiffCommand() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two verdict files",
		Long: `diff prints where two systems gave different answers, grouped by cause. The exit status
is 1 if a difference is not one of those that docs/PARITY.md explains.`,
		Example: `  jailtap conform diff freebsd.verdicts linux.verdicts
  jailtap conform diff -v freebsd.verdicts linux.verdicts
  jailtap conform diff --json freebsd.verdicts linux.verdicts`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("name two verdict files")
			}
			return a.conformDiff(args[0], args[1], all, asJSON)
		},
	}
	cmd.Flags().BoolVarP(&all, "verbose", "v", false, "print all documented differences, not only a few of each cause")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) conformDiff(nameA, nameB string, all, asJSON bool) error {
	fileA, err := readVerdicts(nameA)
	if err != nil {
		return err
	}
	fileB, err := readVerdicts(nameB)
	if err != nil {
		return err
	}
	d, err := conform.Compare(fileA, fileB)
	if err != nil {
		return err
	}
	few := 3
	if all {
		few = d.Compared
	}
	if asJSON {
		err = json.NewEncoder(a.stdout).Encode(d)
	} else {
		err = d.Write(a.stdout, few)
	}
	if n := d.Undocumented(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d differences are not documented", n))
	}
	return err
}

func readVerdicts(name string) (*conform.Verdicts, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return conform.ReadVerdicts(name, file)
}
