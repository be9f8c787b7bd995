package world

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

// Ensure builds a world in a folder that is not there or is empty, and leaves any other
// alone. It tells whether it built one.
func Ensure(ctx context.Context, p Profile, o Options) (built bool, err error) {
	entries, err := os.ReadDir(o.Target)
	switch {
	case err == nil && len(entries) > 0:
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	_, err = Build(ctx, p, o)
	return err == nil, err
}
