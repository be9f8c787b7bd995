package kernel

import "jailtap/compat/conform"

var engines = map[string]func() (conform.Engine, error){
	"cbpf":   openCBPF("cbpf"),
	"ebpf":   openEBPF,
	"wire":   openWire,
	"hub":    openHub,
	"native": openCBPF("native"), // what this system has for BIOCSETF
}
