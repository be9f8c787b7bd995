//go:build !linux

package main

// limitCPU is for compilers of a daemon, which there is on Linux only.
func limitCPU() error { return nil }
