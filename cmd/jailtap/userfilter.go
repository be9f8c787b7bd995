package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"jailtap/bpf"
	"jailtap/bpf/pcapexpr"
)

// filterFlags say where the user's filter comes from, besides the arguments.
type filterFlags struct {
	exprFile string
	program  string
	snaplen  int
}

func (f *filterFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.exprFile, "expression-file", "F", "", "read the expression from `FILE`")
	fs.StringVar(&f.program, "program", "", "instead of an expression, a program in the form of tcpdump -ddd, -dd or -d from `FILE|-`")
	fs.IntVarP(&f.snaplen, "snaplen", "s", 0, "keep `BYTES` of each packet (0: 262144)")
}

// A userFilter is what the user asks for inside the scope.
type userFilter struct {
	text    string      // the expression, or which file the program is from; "": everything
	expr    string      // the expression, if it is one
	program bpf.Program // else
	snaplen int
}

const (
	defaultSnaplen = 262144 // tcpdump's, MAXIMUM_SNAPLEN
	maxFilterFile  = 1 << 20
)

func (f *filterFlags) read(a *app, args []string, d bpf.Dialect) (*userFilter, error) {
	u := &userFilter{expr: strings.Join(args, " "), snaplen: f.snaplen}
	sources := 0
	for _, given := range []bool{u.expr != "", f.exprFile != "", f.program != ""} {
		if given {
			sources++
		}
	}
	switch {
	case sources > 1:
		return nil, usagef("an expression, -F and --program exclude one another")
	case f.snaplen < 0 || f.snaplen > defaultSnaplen:
		return nil, usagef("bad snapshot length %d: want 0 to %d bytes", f.snaplen, defaultSnaplen)
	case f.snaplen == 0:
		u.snaplen = defaultSnaplen
	}
	if f.exprFile != "" {
		text, err := a.readFilterFile(f.exprFile)
		if err != nil {
			return nil, err
		}
		u.expr = strings.TrimSpace(text)
	}
	u.text = u.expr
	if f.program != "" {
		u.text = "program " + f.program
		return u, u.readProgram(a, f.program, d)
	}
	return u, nil
}

func (u *userFilter) readProgram(a *app, name string, d bpf.Dialect) error {
	text, err := a.readFilterFile(name)
	if err != nil {
		return err
	}
	if u.program, err = bpf.ParseProgram(text); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(u.program) == 0 { // keeps everything, as no expression does
		return nil
	}
	if err = u.program.Validate(d); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// readFilterFile reads a whole file of no unreasonable length.
func (a *app) readFilterFile(name string) (string, error) {
	in := a.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFilterFile+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > maxFilterFile:
		return "", fmt.Errorf("%s is longer than %d bytes: that is no filter", name, maxFilterFile)
	case strings.TrimSpace(string(text)) == "":
		return "", fmt.Errorf("%s is empty", name)
	}
	return string(text), nil
}

// ownDialect is that of the system that this runs on, or Linux's.
func ownDialect() bpf.Dialect {
	if runtime.GOOS == "freebsd" {
		return bpf.FreeBSD
	}
	return bpf.Linux
}

// compile makes the user's program for a link type.
func (u *userFilter) compile(lt bpf.LinkType) (bpf.Program, error) {
	switch {
	case u.expr != "":
		return pcapexpr.Compile(u.expr, lt, u.snaplen)
	case u.program == nil && u.snaplen != defaultSnaplen:
		return bpf.Program{{Op: opRet, K: uint32(u.snaplen)}}, nil
	}
	return u.program, nil
}

// opRet is the opcode of RET with a constant (BPF_RET|BPF_K).
const opRet = 0x06
