//go:build !linux && !freebsd

package nsjail

import (
	"context"
	"errors"
	"testing"
)

func TestElsewhereEverythingIsUnsupported(t *testing.T) {
	j := &Jail{}
	_, byName := OpenNamespace("web")
	_, byPID := OpenPID(1)
	_, addrs := j.Addresses()
	for _, err := range []error{byName, byPID, addrs, j.Do(nil), j.Watch(context.Background(), nil)} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v does not wrap errors.ErrUnsupported", err)
		}
	}
}
