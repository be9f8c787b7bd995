//go:build !(linux && (amd64 || arm64))

package jail

import "os"

func (*Jail) openTerminal() (*os.File, error) { return nil, errOther }
