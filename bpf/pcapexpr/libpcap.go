//go:build cgo

package pcapexpr

// #cgo linux LDFLAGS: -ldl
// #include <dlfcn.h>
// #include <stdlib.h>
// #include <pcap/pcap.h>
//
// static struct {
// 	pcap_t *(*open_dead)(int, int);
// 	int (*compile)(pcap_t *, struct bpf_program *, const char *, int, bpf_u_int32);
// 	void (*freecode)(struct bpf_program *);
// 	char *(*geterr)(pcap_t *);
// 	void (*close)(pcap_t *);
// 	const char *(*lib_version)(void);
// } lib;
//
// static int load(const char *name) {
// 	void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
//
// 	return handle &&
// 		(lib.open_dead = dlsym(handle, "pcap_open_dead")) &&
// 		(lib.compile = dlsym(handle, "pcap_compile")) &&
// 		(lib.freecode = dlsym(handle, "pcap_freecode")) &&
// 		(lib.geterr = dlsym(handle, "pcap_geterr")) &&
// 		(lib.close = dlsym(handle, "pcap_close")) &&
// 		(lib.lib_version = dlsym(handle, "pcap_lib_version"));
// }
//
// static pcap_t *open_dead(int link_type, int snaplen) { return lib.open_dead(link_type, snaplen); }
// static int compile(pcap_t *p, struct bpf_program *code, const char *expr, int optimize) {
// 	return lib.compile(p, code, expr, optimize, PCAP_NETMASK_UNKNOWN);
// }
// static void freecode(struct bpf_program *code) { lib.freecode(code); }
// static char *geterr(pcap_t *p) { return lib.geterr(p); }
// static void close_dead(pcap_t *p) { lib.close(p); }
// static const char *lib_version(void) { return lib.lib_version(); }
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"jailtap/bpf"
)

// compiling is held in libpcap's compiler, which kept its state in global
// variables before 1.8.
var compiling sync.Mutex

// load finds libpcap when the first expression needs it: with all that it stands on it
// would take a third of the time in which a jail starts. The names are those of
// libpcap's makefile, of Debian, of FreeBSD and of macOS.
var load = sync.OnceValue(func() error {
	for _, name := range []string{"libpcap.so.1", "libpcap.so.0.8", "libpcap.so.8", "libpcap.A.dylib", "libpcap.so"} {
		text := C.CString(name)
		loaded := C.load(text) != 0
		C.free(unsafe.Pointer(text))
		if loaded {
			return nil
		}
	}
	return fmt.Errorf("there is no libpcap (%s): install it (Debian: libpcap0.8), or give what tcpdump -ddd prints with --program: %w",
		C.GoString(C.dlerror()), errors.ErrUnsupported)
})

func compile(expr string, lt bpf.LinkType, snaplen int, optimize bool) (bpf.Program, error) {
	if err := load(); err != nil {
		return nil, fmt.Errorf("cannot compile the expression %q: %w", expr, err)
	}
	compiling.Lock()
	defer compiling.Unlock()

	handle := C.open_dead(C.int(lt), C.int(snaplen))
	if handle == nil {
		return nil, fmt.Errorf("compile %q: libpcap has no memory for a handle", expr)
	}
	defer C.close_dead(handle)
	text := C.CString(expr)
	defer C.free(unsafe.Pointer(text))
	var opt C.int
	if optimize {
		opt = 1
	}

	var code C.struct_bpf_program
	if C.compile(handle, &code, text, opt) != 0 {
		return nil, &ExprError{expr, C.GoString(C.geterr(handle))}
	}
	defer C.freecode(&code)
	p := make(bpf.Program, code.bf_len)
	for i, ins := range unsafe.Slice(code.bf_insns, code.bf_len) {
		p[i].Op, p[i].Jt, p[i].Jf, p[i].K = uint16(ins.code), uint8(ins.jt), uint8(ins.jf), uint32(ins.k)
	}
	return p, nil
}

func version() string {
	if load() != nil {
		return "without libpcap"
	}
	return C.GoString(C.lib_version())
}
