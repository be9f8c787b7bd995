package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jailtap/bpf"
	"jailtap/compat/conform"
	"jailtap/compat/conform/kernel"
	"jailtap/compat/vectors"
)

func (a *app) conformCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "conform",
		Short: "Compare what systems do with filter programs",
		Long: `conform asks this system what conformance vectors ask, and compares the answers with
what FreeBSD's interpreter, libpcap and Linux are known to give, or with what another
system gave.`,
		Example: `  jailtap conform run --engine all vectors.jsonl.gz
  jailtap conform record --engine native -o freebsd.verdicts vectors.jsonl.gz
  jailtap conform diff freebsd.verdicts linux.verdicts
  jailtap conform report > docs/PARITY.md`,
		Args: cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("name a command: run, record, diff, report, generate")
		},
	}
	cmd.AddCommand(a.conformRunCommand(), a.conformRecordCommand(), a.conformDiffCommand(), a.conformReportCommand(), a.conformGenerateCommand())
	return cmd
}

// conformFlags name vectors and who is asked.
type conformFlags struct {
	engine  string
	dialect string
	verbose bool
	json    bool
}

func (f *conformFlags) register(cmd *cobra.Command, engines ...string) {
	cmd.Flags().StringVar(&f.engine, "engine", "vm", "who is asked, `ENGINE`: vm (the reference), cbpf, ebpf, wire, hub (Linux), native (what the system has for BIOCSETF)")
	cmd.Flags().StringVar(&f.dialect, "dialect", hostDialect().String(), "the rules of `linux|freebsd`, for the engine vm")
	complete(cmd, "engine", engines...)
	complete(cmd, "dialect", "linux", "freebsd")
}

func hostDialect() bpf.Dialect {
	if runtime.GOOS == "freebsd" {
		return bpf.FreeBSD
	}
	return bpf.Linux
}

// check is about the command line.
func (f *conformFlags) check(args []string, engines []string) (bpf.Dialect, error) {
	dialect, err := bpf.ParseDialect(f.dialect)
	switch {
	case err != nil:
		return 0, usageError{err}
	case !slices.Contains(engines, f.engine):
		return 0, usagef("unknown engine %q: known are %v", f.engine, engines)
	case len(args) == 0:
		return 0, usagef("name the files with the vectors")
	}
	return dialect, nil
}

// readVectors reads files; - is standard input.
func (a *app) readVectors(names []string) (*vectors.Set, error) {
	set := &vectors.Set{}
	for _, name := range names {
		if err := a.readVectorsOf(set, name); err != nil {
			return nil, err
		}
	}
	if set.Len() == 0 {
		return nil, fmt.Errorf("no vectors in %v", names)
	}
	return set, nil
}

func (a *app) readVectorsOf(set *vectors.Set, name string) error {
	if name == "-" {
		return set.Read("standard input", a.stdin)
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return set.Read(name, file)
}

// openEngine makes ready who goes by a name. The reference is two in dialect
// freebsd, since FreeBSD has two interpreters.
func openEngine(name string, dialect bpf.Dialect) ([]conform.Engine, error) {
	switch {
	case name == "vm" && dialect == bpf.FreeBSD:
		return []conform.Engine{conform.VM{As: conform.Flat}, conform.VM{As: conform.Receive}}, nil
	case name == "vm":
		return []conform.Engine{conform.VM{As: conform.Linux}}, nil
	}
	e, err := kernel.Open(name)
	if err != nil {
		return nil, err
	}
	if own := e.Mode().Dialect(); own != dialect {
		return nil, errors.Join(&conform.CannotError{Reason: fmt.Sprintf("engine %s speaks dialect %s here", name, own)}, e.Close())
	}
	return []conform.Engine{e}, nil
}

func (a *app) conformRunCommand() *cobra.Command {
	f := &conformFlags{}
	cmd := &cobra.Command{
		Use:   "run [flags] FILE...",
		Short: "Run vectors and say which give other answers than they should",
		Long: `run asks an engine what the vectors of the files ask (JSON lines, gzipped or not; - is
standard input). What an engine cannot answer is skipped, and the reasons are summed
up at the end. The exit status is 1 if a vector failed.`,
		Example: `  jailtap conform run vectors.jsonl.gz
  jailtap conform run --dialect freebsd interp.jsonl.gz scope.jsonl.gz
  jailtap conform run --engine all -v vectors.jsonl.gz
  jailtap conform run --engine cbpf --json vectors.jsonl.gz`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), a, cmd.Flags(), args) },
	}
	f.register(cmd, append([]string{"vm"}, append(kernel.Names(), "all")...)...)
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print every vector, not only those that failed")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON, a line for each vector")
	return cmd
}

// An asking is one engine to be asked.
type asking struct {
	name    string
	dialect bpf.Dialect
}

func (f *conformFlags) run(ctx context.Context, a *app, fs *pflag.FlagSet, args []string) error {
	names := append([]string{"vm"}, kernel.Names()...)
	dialect, err := f.check(args, append(names, "all"))
	if err != nil {
		return err
	}
	set, err := a.readVectors(args)
	if err != nil {
		return err
	}
	askings := []asking{{f.engine, dialect}}
	if f.engine == "all" {
		askings = nil
		for _, name := range names {
			askings = append(askings, asking{name, hostDialect()})
		}
		if other := bpf.Linux + bpf.FreeBSD - hostDialect(); !fs.Changed("dialect") {
			askings = append(askings, asking{"vm", other})
		}
	}
	counts := map[conform.Status]int{}
	reasons := map[string]int{}
	for _, ask := range askings {
		outcomes, err := a.ask(ctx, set, ask)
		if err != nil {
			return err
		}
		for _, o := range outcomes {
			counts[o.Status]++
			if o.Status == conform.Skipped {
				reasons[fmt.Sprintf("engine %s: %s", o.Engine, o.Reason)]++
			}
			if err := f.print(a.stdout, o); err != nil {
				return err
			}
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		a.say("skipped %d: %s", reasons[reason], reason)
	}
	if _, err := fmt.Fprintf(a.stdout, "%d passed, %d failed, %d skipped\n", counts[conform.Passed], counts[conform.Failed], counts[conform.Skipped]); err != nil {
		return err
	}
	if n := counts[conform.Failed]; n > 0 {
		return fmt.Errorf("%d vectors failed", n)
	}
	return nil
}

// ask runs the vectors on one engine. One that is not available skips all.
func (a *app) ask(ctx context.Context, set *vectors.Set, ask asking) (outcomes []conform.Outcome, err error) {
	engines, err := openEngine(ask.name, ask.dialect)
	var cannot *conform.CannotError
	if errors.As(err, &cannot) {
		return conform.Skip(set, ask.name, cannot.Reason), nil
	}
	if err != nil {
		return nil, fmt.Errorf("engine %s: %w", ask.name, err)
	}
	defer func() {
		for _, e := range engines {
			err = errors.Join(err, e.Close())
		}
	}()
	bar := newBar(a.stderr, ask.name, set.Len())
	defer bar.clear()
	return conform.Run(ctx, set, engines, bar.at)
}

func (f *conformFlags) print(w io.Writer, o conform.Outcome) error {
	switch {
	case f.json:
		return json.NewEncoder(w).Encode(o)
	case !f.verbose && o.Status != conform.Failed:
		return nil
	case o.Reason == "":
		_, err := fmt.Fprintf(w, "%s %s %s (%s)\n", o.Status, o.Kind, o.ID, o.Engine)
		return err
	}
	_, err := fmt.Fprintf(w, "%s %s %s (%s): %s\n", o.Status, o.Kind, o.ID, o.Engine, o.Reason)
	return err
}
