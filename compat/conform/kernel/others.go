//go:build !linux && !freebsd

package kernel

import "jailtap/compat/conform"

var engines map[string]func() (conform.Engine, error)
