//go:build amd64 || arm64

package jail

import (
	"net/netip"
	"testing"
)

// From making a jail to the end of a command in it, and all of it gone.
func BenchmarkAJailWithACommand(b *testing.B) {
	for _, kind := range []Network{NoNetwork, VNET, Shared} {
		b.Run(string(kind), func(b *testing.B) {
			r := Registry{Dir: b.TempDir() + "/jails", Cgroup: "jtt-jails-bench"}
			spec := Spec{Name: "a", Path: tree(b), Network: kind, Commands: Commands{Command: []string{"true"}}}
			switch kind {
			case VNET:
				spec.Addresses = []Address{{"", netip.MustParsePrefix("10.9.0.1/24")}}
			case Shared:
				spec.Addresses = []Address{{"lo", netip.MustParsePrefix("10.9.0.1/24")}}
			}
			for b.Loop() {
				if _, err := r.Create(b.Context(), spec, Starter{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
