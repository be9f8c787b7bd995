//go:build amd64 || arm64

package jail

import (
	"os"
	"strings"
)

// setSysctl sets a value, and back.
func setSysctl(path, value string) (restore func(), err error) {
	before, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(string(before)) == value {
		return func() {}, nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return nil, err
	}
	return func() { os.WriteFile(path, before, 0) }, nil
}
