//go:build amd64 || arm64

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"jailtap/loader"
	"jailtap/loader/agent"
	"jailtap/loader/agent/oci"
	"jailtap/nsjail"
)

// ociServer serves containers with captive sockets of a warden.
func (a *app) ociServer(w *loader.Warden, log *slog.Logger) (*oci.Server, error) {
	own, err := nsjail.OpenPID(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("the daemon's network namespace: %w", err)
	}
	defer own.Close() // it stays, and so does its ID
	c := &containers{warden: w, log: log, hosts: []nsjail.ID{own.ID()}}
	host, err := nsjail.OpenPID(1)
	if err != nil {
		log.Warn("it is taken that the host's network namespace is the daemon's", "error", err)
	} else {
		defer host.Close()
		c.hosts = append(c.hosts, host.ID())
	}
	return &oci.Server{Fleet: c.fleet, Log: log}, nil
}

type containers struct {
	warden *loader.Warden
	log    *slog.Logger
	hosts  []nsjail.ID // the network namespaces that are not a container's own
}

var errNoAddress = errors.New("it is on the host's network, and neither its profile (jailtap oci profile -a) nor an annotation " + ociAddress + " names its addresses")

// fleet decides what a container may see: the addresses that its configuration
// names, or else those of its network namespace, if that is its own. In its own it
// could see more of what is there, but nothing that is elsewhere.
func (c *containers) fleet(o oci.Container) (agent.Captives, func(), error) {
	settings, err := ociSettings(o.Metadata, o.Annotations)
	if err != nil {
		return nil, nil, err
	}
	source, err := ociScope(settings)
	if err != nil {
		return nil, nil, err
	}
	jail, err := nsjail.OpenNamespace(o.Namespace)
	if err != nil {
		return nil, nil, err
	}
	fleet, unfollow, err := c.launch(o, source, jail)
	if err != nil {
		jail.Close()
		return nil, nil, err
	}
	return fleet, func() {
		unfollow()
		c.logError(o.ID, fleet.Close())
		jail.Close()
	}, nil
}

// launch makes the fleet of a container in a namespace. Without addresses in
// source its scope is made of those of the namespace, and follows them.
func (c *containers) launch(o oci.Container, source *scopeSource, jail *nsjail.Jail) (_ *agent.Fleet, unfollow func(), err error) {
	var addrs []netip.Prefix
	follows := len(source.fixed) == 0
	if follows && slices.Contains(c.hosts, jail.ID()) {
		return nil, nil, errNoAddress
	}
	if follows { // that there are none yet is no error
		if addrs, err = jail.Addresses(); err != nil {
			return nil, nil, err
		}
	}
	scope := source.with(addrs)
	c.log.Info("scope of a container", "container", o.ID, "namespace", jail.ID().Ino, "follows", follows, "scope", source.describe(scope))
	fleet := agent.NewFleet(c.warden, jail, scope)
	if !follows {
		return fleet, func() {}, nil
	}
	return fleet, c.follow(o.ID, source, jail, fleet), nil
}

// follow keeps the scope at the addresses of a namespace until stop. If that
// fails nothing is shown any more.
func (c *containers) follow(id string, source *scopeSource, jail *nsjail.Jail, fleet *agent.Fleet) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		err := jail.Watch(ctx, func(addrs []netip.Prefix) { c.logError(id, fleet.SetScope(source.with(addrs))) })
		if err != nil {
			c.logError(id, errors.Join(err, fleet.Revoke()))
		}
	}()
	return func() {
		cancel()
		<-followed
	}
}

// logError logs an error that does not end the service.
func (c *containers) logError(id string, err error) {
	if err != nil {
		c.log.Error("container", "container", id, "error", err)
	}
}
