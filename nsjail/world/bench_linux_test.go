package world_test

import (
	"os"
	"path/filepath"
	"testing"

	"jailtap/nsjail/world"
)

func BenchmarkInteractive(b *testing.B) {
	p, err := world.Builtin("interactive")
	if err != nil {
		b.Fatal(err)
	}
	for name, o := range map[string]world.Options{"copied": {}, "linked": {Link: true}} {
		b.Run(name, func(b *testing.B) {
			o.Target = filepath.Join(b.TempDir(), "world")
			for b.Loop() {
				if _, err := world.Build(b.Context(), p, o); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := os.RemoveAll(o.Target); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
