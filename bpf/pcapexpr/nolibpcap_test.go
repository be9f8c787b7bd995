//go:build !cgo

package pcapexpr

import (
	"errors"
	"strings"
	"testing"
)

func TestWithoutCgoTheErrorSaysWhatToInstall(t *testing.T) {
	_, err := Compile("ip", 1, 0)
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "libpcap-dev") {
		t.Errorf("got %v", err)
	}
}
