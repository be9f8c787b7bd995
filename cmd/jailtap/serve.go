package main

import (
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jailtap/loader/broker"
)

// serveFlags are those of the command serve.
type serveFlags struct {
	scope scopeFlags
	jails string

	socket    string
	mode      string
	group     string
	ociSocket string

	metrics         string
	metricsAnywhere bool

	pins   string
	cgroup string
}

func (a *app) serveCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Give captures to processes without privileges",
		Long: `serve is the broker: a daemon that gives captive sockets to processes that could
open none themselves. Each shows the packets in scope of the jail that the process
belongs to, and nothing else, whatever the process does with it. jailtap capture
asks for one by itself where it lacks the privilege.

Which jail a process belongs to is the kernel's word. With --jails FILE its cgroup,
its user and its network namespace decide. With a scope on the command line all that
may connect are of that one jail: --mode and --group say who. With neither, a process
in a network namespace of its own sees the packets of that namespace's addresses, and
one in the daemon's is refused.

The scope follows the addresses of the jail. Sockets outlive the daemon, also a
SIGKILL: they show what they did, and the next daemon on the same --socket takes them
up, or shuts those whose jail it does not know.

docs/BROKER.md has the protocol and an example of FILE.`,
		Example: `  jailtap serve
  jailtap serve --jails /etc/jailtap/jails.yaml --metrics localhost:9436
  jailtap serve --netns web --socket /run/jailtap/web.sock --group web-admins
  jailtap serve --oci-socket /run/jailtap/oci.sock`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd.Flags()); err != nil {
				return err
			}
			return f.daemon(cmd.Context(), a, cmd.Flags())
		},
	}
	f.scope.register(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.jails, "jails", "", "the jails in `FILE` (YAML)")
	fs.StringVar(&f.socket, "socket", broker.DefaultSocket, "listen at `PATH`")
	fs.StringVar(&f.mode, "mode", "", "file mode of the socket, `OCTAL` (default 0660 with a scope, else 0666)")
	fs.StringVar(&f.group, "group", "", "group of the socket, `NAME`")
	fs.StringVar(&f.ociSocket, "oci-socket", "", "serve container runtimes at `PATH` too (see jailtap oci)")
	fs.StringVar(&f.metrics, "metrics", "", "serve counts for Prometheus at `HOST:PORT`, /metrics")
	fs.BoolVar(&f.metricsAnywhere, "metrics-anywhere", false, "they may be asked for from other hosts")
	fs.StringVar(&f.pins, "pins", "", "keep the guards in `DIR`, on a bpffs (default /sys/fs/bpf/jailtap)")
	fs.StringVar(&f.cgroup, "cgroup", "", "make sockets in the cgroup `DIR` (default jailtap, at the root)")
	cmd.AddCommand(a.compileCommand())
	return cmd
}

func (f *serveFlags) check(fs *pflag.FlagSet) error {
	_, scope := f.scope.given(fs)
	switch {
	case f.jails != "" && len(scope) > 0:
		return usagef("--jails and %s contradict one another", scope[0])
	case f.socket == "":
		return usagef("say where to listen with --socket PATH")
	case f.metricsAnywhere && f.metrics == "":
		return usagef("--metrics-anywhere is about --metrics, which is missing")
	}
	if f.mode != "" {
		if _, err := strconv.ParseUint(f.mode, 8, 9); err != nil {
			return usagef("bad mode %q: want an octal number up to 777", f.mode)
		}
	}
	return nil
}

// socketMode is the file mode of the socket. oneJail: whoever connects is of it.
func (f *serveFlags) socketMode(oneJail bool) uint32 {
	mode, err := strconv.ParseUint(f.mode, 8, 9)
	switch {
	case err == nil:
		return uint32(mode)
	case oneJail:
		return 0o660
	}
	return 0o666
}
