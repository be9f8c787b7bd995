//go:build !linux || !(amd64 || arm64)

package main

import (
	"context"

	"jailtap/loader/agent"
)

func runAgent(ctx context.Context, _ *app, cfg agent.Config, _ *scopeSource, argv []string) (int, error) {
	return agent.Run(ctx, cfg, argv)
}
