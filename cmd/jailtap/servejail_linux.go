package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"jailtap/bpf"
	"jailtap/loader/broker"
	"jailtap/nsjail"
)

// A registry knows which jail a process belongs to.
type registry interface {
	resolve(*broker.Peer) (*broker.Jail, error) // without Namespace
	find(name string) (*broker.Jail, error)
}

// registry is the one that the flags ask for.
func (f *serveFlags) registry(fs *pflag.FlagSet, log *slog.Logger) (r registry, oneJail bool, err error) {
	switch _, scope := f.scope.given(fs); {
	case f.jails != "":
		file, err := readJails(f.jails)
		return file, false, err
	case len(scope) > 0:
		source, err := f.scope.open(fs)
		if err != nil {
			return nil, true, err
		}
		return single{source}, true, nil
	}
	n, err := newNamespaces(log)
	return n, false, err
}

// A followed scope is that of a source, which it closes at its end.
type followed struct {
	*scopeSource
	whose string // in words; "": as the source says
}

// Watch implements broker.Scope.
func (f followed) Watch(ctx context.Context, report func(bpf.Scope)) error {
	if f.jail == nil {
		report(f.with(nil))
		<-ctx.Done()
		return nil
	}
	return f.jail.Watch(ctx, func(addrs []netip.Prefix) { report(f.with(addrs)) })
}

// Describe implements broker.Scope.
func (f followed) Describe(s bpf.Scope) string {
	return cmp.Or(f.whose, f.String()) + strings.TrimPrefix(f.describe(s), f.String())
}

// Close implements broker.Scope.
func (f followed) Close() error {
	f.scopeSource.Close()
	return nil
}

// resolve finds the jail, and the namespace in which the process gets its socket:
// its own.
func resolve(r registry, p *broker.Peer) (*broker.Jail, error) {
	j, err := r.resolve(p)
	if err != nil {
		return nil, err
	}
	if j.Namespace, err = nsjail.OpenNamespace(p.Namespace); err != nil {
		j.Scope.Close()
		return nil, err
	}
	return j, nil
}

// A single jail is everybody's.
type single struct{ *scopeSource }

func (s single) resolve(*broker.Peer) (*broker.Jail, error) {
	return &broker.Jail{Name: "one", Scope: borrowed{followed{scopeSource: s.scopeSource}}}, nil
}

func (s single) find(name string) (*broker.Jail, error) {
	if name != "one" {
		return nil, fmt.Errorf("no jail %q", name)
	}
	return s.resolve(nil)
}

// A borrowed scope stays open.
type borrowed struct{ followed }

func (borrowed) Close() error { return nil }

// resolve implements registry.
func (f *jailsFile) resolve(p *broker.Peer) (*broker.Jail, error) {
	for _, j := range f.Jails {
		if j.Match.holds(p) {
			return j.open()
		}
	}
	return nil, fmt.Errorf("process %d (user %d, cgroup %s, network namespace %d) is of no jail of the file of --jails", p.PID, p.UID, p.Cgroup, p.NamespaceID.Ino)
}

// find implements registry.
func (f *jailsFile) find(name string) (*broker.Jail, error) {
	for _, j := range f.Jails {
		if j.Name == name {
			return j.open()
		}
	}
	return nil, fmt.Errorf("no jail %q", name)
}

func (m jailMatch) holds(p *broker.Peer) bool {
	switch {
	case m.Cgroup != "" && !below(p.Cgroup, m.Cgroup):
		return false
	case m.UID != nil && *m.UID != p.UID:
		return false
	case m.Netns == "":
		return true
	}
	there, err := nsjail.OpenNamespace(m.Netns)
	if err != nil {
		return false // it may come
	}
	defer there.Close()
	return there.ID() == nsjail.ID(p.NamespaceID)
}

// below reports whether a cgroup is another one or below it.
func below(cgroup, top string) bool {
	top = strings.TrimSuffix(top, "/")
	return cgroup == top || strings.HasPrefix(cgroup, top+"/")
}

// open is the jail with its scope, which has to be closed.
func (j *jailEntry) open() (*broker.Jail, error) {
	source := &scopeSource{fixed: j.fixed, policy: j.policy, vlans: j.vlans}
	if j.Netns != "" {
		var err error
		if source.jail, err = opened(nsjail.OpenNamespace(j.Netns)); err != nil {
			return nil, broker.Refuse(broker.CodeScope, "jail %s: %v", j.Name, err)
		}
	}
	return &broker.Jail{Name: j.Name, Scope: followed{source, "jail " + j.Name}, Interfaces: j.Interfaces, Limits: j.Limits.broker()}, nil
}

// namespaces are jails by themselves, but for those that are the host's.
type namespaces struct{ hosts []nsjail.ID }

func newNamespaces(log *slog.Logger) (n namespaces, err error) {
	own, err := nsjail.OpenPID(os.Getpid())
	if err != nil {
		return n, fmt.Errorf("the daemon's network namespace: %w", err)
	}
	defer own.Close() // it stays, and so does its ID
	n.hosts = append(n.hosts, own.ID())
	host, err := nsjail.OpenPID(1)
	if err != nil {
		log.Warn("it is taken that the host's network namespace is the daemon's", "error", err)
		return n, nil
	}
	defer host.Close()
	n.hosts = append(n.hosts, host.ID())
	return n, nil
}

const namespacePrefix = "netns-"

// resolve implements registry.
func (n namespaces) resolve(p *broker.Peer) (*broker.Jail, error) {
	if slices.Contains(n.hosts, nsjail.ID(p.NamespaceID)) {
		return nil, fmt.Errorf("process %d is in the host's network namespace, which is no jail: say what is its with jailtap serve --jails FILE or -a ADDRESS", p.PID)
	}
	return n.open(p.Namespace)
}

func (n namespaces) open(path string) (*broker.Jail, error) {
	j, err := nsjail.OpenNamespace(path)
	if err != nil {
		return nil, err
	}
	number := strconv.FormatUint(j.ID().Ino, 10)
	scope := followed{&scopeSource{jail: j, policy: bpf.Full}, "network namespace " + number}
	return &broker.Jail{Name: namespacePrefix + number, Scope: scope}, nil
}

// find implements registry. As long as there is a socket of it a namespace keeps
// its number. It is found if it has a name or a process.
func (n namespaces) find(name string) (*broker.Jail, error) {
	number, ok := strings.CutPrefix(name, namespacePrefix)
	if !ok {
		return nil, fmt.Errorf("no jail %q", name)
	}
	for _, pattern := range []string{"/run/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			j, err := n.open(path)
			if err != nil {
				continue // it is gone, or no namespace
			}
			if j.Name == namespacePrefix+number {
				return j, nil
			}
			j.Scope.Close()
		}
	}
	return nil, errors.New("the network namespace has neither a name nor a process any more")
}
