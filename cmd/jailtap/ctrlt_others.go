//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package main

import "io"

func ctrlTs(io.Reader) (typed <-chan struct{}, stop func()) { return nil, func() {} }
