package main

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
	"jailtap/loader/broker"
)

// A compileTask is an expression that a client wants, on its way to the process
// that compiles it.
type compileTask struct {
	Expression string       `json:"expression"`
	LinkType   bpf.LinkType `json:"link_type"`
	Snaplen    int          `json:"snaplen"`
}

// A compileResult has Error or Program.
type compileResult struct {
	Program broker.Program `json:"program,omitempty"`
	Error   string         `json:"error,omitempty"`
}

// compileCommand is what serve starts to have expressions compiled: libpcap's
// parser is in C and reads what anybody writes, which is nothing for a process with
// privileges.
func (a *app) compileCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "compile",
		Short:   "Compile expressions for serve, from standard input",
		Example: "  jailtap serve compile",
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.compile() },
	}
}

func (a *app) compile() error {
	if err := limitCPU(); err != nil {
		return err
	}
	tasks, results := json.NewDecoder(a.stdin), json.NewEncoder(a.stdout)
	for {
		var task compileTask
		if err := tasks.Decode(&task); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var result compileResult
		if p, err := pcapexpr.Compile(task.Expression, task.LinkType, task.Snaplen); err != nil {
			result.Error = err.Error()
		} else {
			result.Program = broker.ProgramOf(p)
		}
		if err := results.Encode(result); err != nil {
			return err
		}
	}
}
