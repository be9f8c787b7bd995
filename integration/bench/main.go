//go:build linux

// Bench measures what a scope costs and writes docs/BENCH.md, with figures: the time that
// rewritten filters take beside libpcap's own conjunctions, how many packets a
// CPU-second captures beside tcpdump, how long a jail takes to start beside
// bwrap, and a root file system beside cp.
//
// Machines change speed while one measures. So everything is measured in turns,
// many times, and told as medians and ratios.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf/pcapexpr"
	"jailtap/internal/netlab"
)

// namePrefix begins the names of the namespaces.
const namePrefix = "jtb"

func main() {
	if is, err := isAnother(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: captures:", err)
			os.Exit(1)
		}
		return
	}
	jailtap := flag.String("jailtap", "bin/jailtap", "the program to measure")
	out := flag.String("o", "docs/BENCH.md", "`file` for the results")
	only := flag.String("only", "", "`part` to measure, of "+strings.Join(partNames(), ", ")+"; then nothing is written")
	flag.Parse()
	if err := run(*jailtap, *out, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// isAnother does the work of a process that this program has started to be another, and
// reports whether it is one.
func isAnother() (is bool, err error) {
	for variable, run := range map[string]func(config string) error{captorsVariable: runCaptors, handoverVariable: runHandover, setupVariable: runAskers} {
		if config, ok := os.LookupEnv(variable); ok {
			os.Unsetenv(variable) // what it starts is another again
			return true, run(config)
		}
	}
	return false, nil
}

// A part is a section of the page.
type part struct {
	name  string
	bench func(w io.Writer, l lab, jailtap string) error
}

var parts = []part{
	{"filters", func(w io.Writer, l lab, _ string) error { return benchFilters(w, l, matches, rounds) }},
	{"capture", benchCapture},
	{"captives", benchCaptives},
	{"jails", func(w io.Writer, _ lab, jailtap string) error { return benchJails(w, jailtap, jailRounds) }},
	{"crowds", func(w io.Writer, l lab, _ string) error { return benchCrowds(w, l, crowdSizes, crowdRounds) }},
	{"setup", func(w io.Writer, l lab, jailtap string) error {
		return benchSetup(w, l, jailtap, setupRounds, setupRun, memoryRounds)
	}},
	{"worlds", func(w io.Writer, _ lab, jailtap string) error { return benchWorlds(w, jailtap, worldRounds) }},
}

func partNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func run(jailtap, out, only string) error {
	if only != "" && !slices.Contains(partNames(), only) {
		return fmt.Errorf("unknown part %q: there are %s", only, strings.Join(partNames(), ", "))
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make network namespaces and packet sockets; try: sudo make bench")
	}
	jailtap, err := filepath.Abs(jailtap)
	if err != nil {
		return err
	}
	var page bytes.Buffer
	both := io.MultiWriter(os.Stdout, &page)
	printMachine(both)
	for _, p := range parts {
		if only != "" && only != p.name {
			continue
		}
		start := time.Now()
		if err := p.measure(both, jailtap); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %v\n", p.name, time.Since(start).Round(time.Second))
	}
	if only != "" {
		return nil
	}
	text, err := withFigures(page.String(), filepath.Join(filepath.Dir(out), "bench"))
	if err != nil {
		return err
	}
	return os.WriteFile(out, []byte(text), 0o644)
}

// measure gives the part a lab of its own, which is removed also when it is interrupted.
func (p part) measure(w io.Writer, jailtap string) error {
	l, err := newLab()
	defer l.remove()
	if err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, unix.SIGINT, unix.SIGTERM)
	defer close(interrupted)
	defer signal.Stop(interrupted)
	go func() {
		if _, is := <-interrupted; is {
			l.remove()
			os.Exit(1)
		}
	}()
	return p.bench(w, l, jailtap)
}

// A lab is two namespaces: frames are sent in one and arrive in the other.
type lab struct{ from, to *netlab.Namespace }

// newLab returns what it has made also with an error, to be removed.
func newLab() (l lab, err error) {
	netlab.RemoveStale(namePrefix)
	if l.from, err = netlab.New(netlab.Name(namePrefix, "from")); err != nil {
		return l, err
	}
	l.to, err = netlab.New(netlab.Name(namePrefix, "to"))
	return l, err
}

func (l lab) remove() {
	for _, n := range []*netlab.Namespace{l.from, l.to} {
		if n != nil {
			n.Remove()
		}
	}
}

// printMachine says where and when the numbers were measured.
func printMachine(w io.Writer) {
	var u unix.Utsname
	unix.Uname(&u)
	tcpdump, _ := exec.Command("tcpdump", "--version").CombinedOutput() // of the kind "tcpdump version 4.99.3\n..."
	first, _, _ := strings.Cut(string(tcpdump), "\n")
	fmt.Fprintf(w, "# Benchmarks\n\nWritten by `make bench` on %s.\n\n", time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(w, "%d CPUs, %s; Linux %s, %s; %s; %s, %s. ", runtime.NumCPU(), cpuModel(),
		unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, runtime.Version(), first, pcapexpr.Version())
	fmt.Fprint(w, "Everything is measured in turns; the numbers are medians. Compare columns, not machines.\n")
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown model"
}

func median[T cmp.Ordered](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}
