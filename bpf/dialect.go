package bpf

import "fmt"

// A Dialect is one system's rules for what a valid program is and what it does.
type Dialect uint8

const (
	Linux   Dialect = iota // net/core/filter.c
	FreeBSD                // sys/net/bpf_filter.c
)

func (d Dialect) String() string {
	if d == FreeBSD {
		return "freebsd"
	}
	return "linux"
}

// ParseDialect is the inverse of Dialect.String.
func ParseDialect(name string) (Dialect, error) {
	switch name {
	case "linux":
		return Linux, nil
	case "freebsd":
		return FreeBSD, nil
	}
	return 0, fmt.Errorf("unknown dialect %q: known are linux and freebsd", name)
}

// MaxInstructions is the length of the longest program that the system takes:
// BPF_MAXINSNS of linux/bpf_common.h, and FreeBSD's default of the sysctl
// net.bpf.maxinsns.
func (d Dialect) MaxInstructions() int {
	if d == FreeBSD {
		return 512
	}
	return 4096
}
