//go:build amd64 || arm64

package main

import (
	"context"
	"log/slog"
	"net/netip"

	"jailtap/bpf"
	"jailtap/loader"
	"jailtap/loader/agent"
)

func runAgent(ctx context.Context, a *app, cfg agent.Config, source *scopeSource, argv []string) (int, error) {
	scope, err := source.now()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg.Options.Log = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Open = func() (agent.Captives, func(), error) {
		fleet, closeAll, err := a.launchFleet(ctx, cfg.Namespace, source, scope)
		return fleet, func() { cancel(); closeAll() }, err
	}
	return agent.Run(ctx, cfg, argv)
}

// launchFleet makes a fleet of a warden of its own. closeAll waits for the end of ctx.
func (a *app) launchFleet(ctx context.Context, ns loader.Namespace, source *scopeSource, scope bpf.Scope) (fleet *agent.Fleet, closeAll func(), err error) {
	warden, err := loader.OpenWarden(loader.WardenConfig{})
	if err != nil {
		return nil, nil, err
	}
	gap, err := warden.Guard(ns)
	if err != nil {
		a.sayError(warden.Close())
		return nil, nil, err
	}
	if gap != nil {
		a.say("warning: the command may send, for a moment, on an interface that has just appeared: %v", gap)
	}
	fleet = agent.NewFleet(warden, ns, scope)
	followed := a.followFleet(ctx, source, fleet)
	return fleet, func() {
		<-followed
		a.sayError(fleet.Close())
		a.sayError(warden.Close())
	}, nil
}

// followFleet keeps the scope at the addresses that the jail has. If that fails
// nothing is shown any more: it might not be the jail's.
func (a *app) followFleet(ctx context.Context, source *scopeSource, fleet *agent.Fleet) (done <-chan struct{}) {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		if source.jail == nil {
			return
		}
		err := source.jail.Watch(ctx, func(addrs []netip.Prefix) { a.sayError(fleet.SetScope(source.with(addrs))) })
		if err != nil {
			a.say("%v of %v: %v; the command sees no packets any more", errFollow, source, err)
			a.sayError(fleet.Revoke())
		}
	}()
	return finished
}

// sayError prints an error that does not end the command.
func (a *app) sayError(err error) {
	if err != nil {
		a.say("%v", err)
	}
}
