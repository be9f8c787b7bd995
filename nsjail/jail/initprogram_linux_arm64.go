package jail

import _ "embed"

//go:embed init_arm64.bin
var initProgram []byte
