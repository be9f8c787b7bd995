//go:build cgo

package pcapexpr

// #cgo LDFLAGS: -lpcap
// #include <stdlib.h>
// #include <pcap/pcap.h>
import "C"

import (
	"fmt"
	"sync"
	"unsafe"

	"jailtap/bpf"
)

// compiling is held in libpcap's compiler, which kept its state in global
// variables before 1.8.
var compiling sync.Mutex

func compile(expr string, lt bpf.LinkType, snaplen int, optimize bool) (bpf.Program, error) {
	compiling.Lock()
	defer compiling.Unlock()

	handle := C.pcap_open_dead(C.int(lt), C.int(snaplen))
	if handle == nil {
		return nil, fmt.Errorf("compile %q: libpcap has no memory for a handle", expr)
	}
	defer C.pcap_close(handle)
	text := C.CString(expr)
	defer C.free(unsafe.Pointer(text))
	var opt C.int
	if optimize {
		opt = 1
	}

	var code C.struct_bpf_program
	if C.pcap_compile(handle, &code, text, opt, C.PCAP_NETMASK_UNKNOWN) != 0 {
		return nil, &ExprError{expr, C.GoString(C.pcap_geterr(handle))}
	}
	defer C.pcap_freecode(&code)
	p := make(bpf.Program, code.bf_len)
	for i, ins := range unsafe.Slice(code.bf_insns, code.bf_len) {
		p[i].Op, p[i].Jt, p[i].Jf, p[i].K = uint16(ins.code), uint8(ins.jt), uint8(ins.jf), uint32(ins.k)
	}
	return p, nil
}

func version() string { return C.GoString(C.pcap_lib_version()) }
