//go:build !linux

package loader

func hold(int, HeldConfig) (*Tap, error) { return nil, errNoCaptive }
