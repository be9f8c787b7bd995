//go:build !linux

package world

// Overlay is not known here.
func Overlay(string, string) (Result, error) { return Result{}, unsupported("an overlay") }
