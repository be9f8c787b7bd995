package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jailtap/internal/capfile"
	"jailtap/loader"
	"jailtap/loader/broker"
)

// captureFlags are those of the command capture.
type captureFlags struct {
	scope   scopeFlags
	filter  filterFlags
	noScope bool

	iface     string
	inNetns   string
	readFile  string
	engine    string
	direction string
	immediate bool
	hub       string
	ringKiB   int
	noPromisc bool
	broker    string
	brokered  bool // the broker opens the capture

	writeFile string
	format    string
	megabytes int64
	seconds   int64
	files     int
	eachFlush bool
	lineFlush bool
	quiet     bool
	verbose   int
	numeric   bool

	count    uint64
	duration string
	stats    string
}

func (a *app) captureCommand() *cobra.Command {
	f := &captureFlags{}
	cmd := &cobra.Command{
		Use:   "capture [flags] [EXPRESSION...]",
		Short: "Capture packets that are in scope",
		Long: `capture prints the packets of an interface or a file, or writes them to a file, that
are to or from the addresses of a scope and match a pcap expression
(pcap-filter(7)). While it runs it follows the addresses of a jail.

Without the privilege to capture (CAP_NET_RAW) it asks the broker, jailtap serve, if
there is one. Then the broker decides whose packets may be seen, and no scope is to
be given.

It ends at SIGINT, SIGTERM, after -c packets or --duration, and then says how many
packets it has seen; SIGUSR1, or Ctrl-T on its terminal, makes it say so and go on.`,
		Example: `  jailtap capture -j web
  jailtap capture -i br0 --netns web
  jailtap capture -i br0 --netns web -w web.pcapng tcp port 80
  jailtap capture -i any -a 10.0.0.5,fd00::5 -c 100 -w - | tshark -i -
  jailtap capture -i eth0 --in-netns router -a 10.1.0.0/16 -C 100 -W 10 -w ring.pcapng
  jailtap capture -r all.pcapng -a 10.0.0.5 -w five.pcap not arp
  jailtap capture --broker /run/jailtap/web.sock -i any`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.session(a, cmd.Flags(), args)
			if err != nil {
				return err
			}
			defer s.Close()
			if f.readFile != "" {
				return s.fromFile(cmd.Context(), f.readFile)
			}
			return s.live(cmd.Context())
		},
	}
	f.register(cmd)
	return cmd
}

func (f *captureFlags) register(cmd *cobra.Command) {
	f.scope.register(cmd)
	f.filter.register(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&f.noScope, "no-scope", false, "capture everything, as root, for comparisons")

	fs.StringVarP(&f.iface, "interface", "i", "", "capture on interface `NAME|any`; unset, with -j, where the jail's packets pass")
	fs.StringVar(&f.inNetns, "in-netns", "", "the interface is in network namespace `NAME|PATH`, not the caller's")
	fs.StringVarP(&f.readFile, "read", "r", "", "read the packets of a capture `FILE|-` instead; needs no privilege")
	fs.StringVar(&f.engine, "engine", string(loader.Auto), "what enforces the scope in the kernel, `auto|cbpf|ebpf`")
	fs.StringVar(&f.direction, "direction", string(loader.InOut), "packets received, sent, or both, `in|out|inout`")
	fs.StringVar(&f.hub, "hub", string(loader.HubAuto), "share one program with the interface's other captures, `auto|always|never`; auto: with three or more")
	fs.BoolVar(&f.immediate, "immediate", false, "show packets at once, for more CPU time")
	fs.IntVarP(&f.ringKiB, "buffer-size", "B", 0, "make the ring `KiB` large (0: 2048)")
	fs.StringVar(&f.broker, "broker", broker.DefaultSocket, "ask the broker at `PATH`; given, whatever the privileges")
	fs.BoolVarP(&f.noPromisc, "no-promiscuous-mode", "p", false, "do not put the interface into promiscuous mode")

	fs.StringVarP(&f.writeFile, "write", "w", "", "write packets to `FILE|-`: pcapng, or pcap if it is NAME.pcap")
	fs.StringVar(&f.format, "format", "", "file format `pcapng|pcap`, whatever the name")
	fs.Int64VarP(&f.megabytes, "rotate-size", "C", 0, "go on in FILE1, FILE2... after `MB` million bytes each")
	fs.Int64VarP(&f.seconds, "rotate-time", "G", 0, "go on in another file after `SECONDS`; FILE has strftime(3) conversions")
	fs.IntVarP(&f.files, "rotate-files", "W", 0, "with -C use `FILES` files in turn, with -G end after so many")
	fs.BoolVarP(&f.eachFlush, "packet-buffered", "U", false, "write each packet at once")
	fs.BoolVarP(&f.lineFlush, "line-buffered", "l", false, "print each line at once")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print less about each packet")
	fs.CountVarP(&f.verbose, "verbose", "v", "print more about each packet``")
	fs.BoolVarP(&f.numeric, "numeric", "n", false, "print numbers, not names; always so")

	fs.Uint64VarP(&f.count, "count", "c", 0, "end after `COUNT` packets")
	fs.StringVar(&f.duration, "duration", "", "end after `TIME`, such as 90s, 5m or, in seconds, 90")
	fs.StringVar(&f.stats, "stats", "", "at the end write counts as JSON to `FILE|-`")

	complete(cmd, "engine", "auto", "cbpf", "ebpf")
	complete(cmd, "hub", "auto", "always", "never")
	complete(cmd, "direction", "inout", "in", "out")
	complete(cmd, "format", "pcapng", "pcap")
}

// session checks the flags and opens what they name but for the capture and
// its output.
func (f *captureFlags) session(a *app, fs *pflag.FlagSet, args []string) (*session, error) {
	if err := f.check(fs); err != nil {
		return nil, err
	}
	s := &session{app: a, flags: f}
	var err error
	if s.duration, err = parseDuration(f.duration); err != nil {
		return nil, err
	}
	if s.rotation, err = f.rotation(); err != nil {
		return nil, err
	}
	if s.format, err = f.fileFormat(); err != nil {
		return nil, err
	}
	if s.user, err = f.filter.read(a, args, ownDialect()); err != nil {
		return nil, err
	}
	if f.noScope || f.brokered {
		return s, nil
	}
	if s.source, err = f.scope.open(fs); err != nil {
		return nil, err
	}
	if f.readFile == "" && f.iface == "" {
		f.iface, err = interfaceOf(f.scope.jail)
	}
	return s, err
}

func (f *captureFlags) check(fs *pflag.FlagSet) error {
	_, scope := f.scope.given(fs)
	f.brokered = f.asksBroker(fs)
	switch {
	case f.brokered:
		if err := f.checkBrokered(fs, scope); err != nil {
			return err
		}
	case f.noScope && len(scope) > 0:
		return usagef("--no-scope and %s contradict one another", scope[0])
	case !f.noScope && len(scope) == 0:
		return usagef("no scope: say whose packets may be seen with --netns NAME, --pid PID, -j JAIL or -a ADDRESS " +
			"(or, as root and for comparisons, everybody's with --no-scope)")
	}
	switch {
	case f.readFile != "" && f.iface != "":
		return usagef("-i and -r exclude one another")
	case f.readFile == "" && f.iface == "" && (!fs.Changed("jail") || f.inNetns != ""):
		return usagef("say where to capture with -i INTERFACE (or -i any, or -r FILE)")
	case fs.Changed("count") && f.count == 0:
		return usagef("bad count 0: want 1 or more packets")
	case f.ringKiB < 0 || f.ringKiB > 1<<21:
		return usagef("bad ring size %d KiB: want up to 2097152, which is 2 GiB", f.ringKiB)
	case f.hub == "always" && (f.noScope || f.engine == "cbpf" || f.iface == "any"):
		return usagef("--hub always needs a scope, the engine ebpf and one interface")
	case f.stats == "-" && f.writeFile == "-":
		return usagef("--stats - and -w - would mix in standard output")
	}
	for _, flag := range []string{"in-netns", "engine", "direction", "immediate", "hub", "buffer-size"} {
		if f.readFile != "" && fs.Changed(flag) {
			return usagef("--%s is about a live capture and means nothing with -r", flag)
		}
	}
	if err := oneOf("engine", f.engine, "auto", "cbpf", "ebpf"); err != nil {
		return err
	}
	if err := oneOf("hub", f.hub, "auto", "always", "never"); err != nil {
		return err
	}
	return oneOf("direction", f.direction, "inout", "in", "out")
}

func oneOf(flag, value string, words ...string) error {
	for _, word := range words {
		if value == word {
			return nil
		}
	}
	return usagef("unknown %s %q: known are %s", flag, value, strings.Join(words, ", "))
}

func parseDuration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if seconds, err2 := strconv.ParseFloat(text, 64); err2 == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d <= 0 {
		return 0, usagef("bad duration %q: want 90s, 5m, or 90 for seconds", text)
	}
	return d, nil
}

func (f *captureFlags) fileFormat() (capfile.Format, error) {
	if f.format == "" {
		return capfile.FormatOf(f.writeFile), nil
	}
	format, err := capfile.ParseFormat(f.format)
	if err != nil {
		return 0, usageError{err}
	}
	if f.writeFile == "" {
		return 0, usagef("--format is about the file of -w, which is missing")
	}
	return format, nil
}

func (f *captureFlags) rotation() (rotation, error) {
	r := rotation{name: f.writeFile, size: f.megabytes * 1e6, every: time.Duration(f.seconds) * time.Second, files: f.files}
	rotates := r.size > 0 || r.every > 0
	switch {
	case f.megabytes < 0 || f.seconds < 0 || f.files < 0 || f.megabytes > 1e12 || f.seconds > 1e9:
		return r, usagef("-C, -G and -W want positive numbers within reason")
	case rotates && (f.writeFile == "" || f.writeFile == "-"):
		return r, usagef("-C and -G need -w FILE")
	case f.files > 0 && !rotates:
		return r, usagef("-W needs -C or -G")
	}
	if _, err := r.fileName(time.Now(), 0); err != nil {
		return r, usageError{err}
	}
	return r, nil
}

// linkTypeNames are libpcap's names and descriptions, by LINKTYPE.
var linkTypeNames = map[uint32]string{
	0: "NULL (BSD loopback)", 1: "EN10MB (Ethernet)", 101: "RAW (Raw IP)", 108: "LOOP (OpenBSD loopback)",
	113: "LINUX_SLL (Linux cooked v1)", 276: "LINUX_SLL2 (Linux cooked v2)",
}

func linkTypeName(n uint32) string {
	if name, ok := linkTypeNames[n]; ok {
		return name
	}
	return fmt.Sprintf("%d", n)
}
