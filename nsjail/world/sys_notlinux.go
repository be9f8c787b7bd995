//go:build !linux

package world

import (
	"context"
	"os"
)

// A copier copies files.
type copier struct{}

func (*copier) copy(ctx context.Context, dst, src *os.File) (int64, error) {
	return copyPieces(ctx, dst, src)
}

func (*tree) xattrs(string) (map[string]string, error) { return nil, nil }

func setXattr(*os.File, string, string) error { return unsupported("an extended attribute") }

func makeDevice(*os.Root, string, *Entry) error { return unsupported("a device") }

// exchange swaps two names; for a moment one of them is missing.
func exchange(a, b string) error {
	aside := a + ".old"
	if err := os.Rename(b, aside); err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		return err
	}
	return os.Rename(aside, a)
}

// mountsIn is not known here; removing stops at mount points all the same,
// since they are busy.
func mountsIn(string) ([]string, error) { return nil, nil }
