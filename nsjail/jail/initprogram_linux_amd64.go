package jail

import _ "embed"

//go:embed init_amd64.bin
var initProgram []byte
