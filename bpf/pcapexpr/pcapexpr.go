// Package pcapexpr compiles pcap expressions (pcap-filter(7)) with libpcap.
//
// The programs are about frames as capture files hold them: VLAN tags in place,
// cooked headers in front. On a live Linux socket the frame is not yet so;
// bpf.Compile sees to that.
//
// Some words have no meaning for a frame in a file. Of `inbound`, `outbound`
// and `ifindex`, libpcap 1.10 makes loads of Linux metadata (offsets from
// 0xfffff000, linux/filter.h) on EN10MB, NULL, LOOP and RAW, and of `ifindex`
// on LINUX_SLL too; elsewhere in cooked frames they read the header. libpcap
// 1.11 refuses them where it needs a live capture.
//
// libpcap is a C library: a build without cgo has no expressions, and says so.
package pcapexpr

import (
	"fmt"
	"strings"

	"jailtap/bpf"
)

// An ExprError is libpcap's refusal of an expression.
type ExprError struct {
	Expr string
	Msg  string // in libpcap's words
}

func (e *ExprError) Error() string { return fmt.Sprintf("bad expression %q: %s", e.Expr, e.Msg) }

// maxSnaplen is MAXIMUM_SNAPLEN of libpcap's pcap-int.h.
const maxSnaplen = 262144

// Compile compiles an expression for frames of type lt. The program keeps
// snaplen bytes of the frames that it accepts; 0 stands for 262144. An empty
// expression gives the empty program, which keeps everything.
//
// libpcap's optimiser is used only as far as bpf.SameVerdicts can show that it
// changed nothing: that of 1.10 loses a test of some expressions, as
// `(not host A) and (ip and (host A or host B))`.
func Compile(expr string, lt bpf.LinkType, snaplen int) (bpf.Program, error) {
	plain, err := CompileUnoptimized(expr, lt, snaplen)
	if err != nil {
		return nil, err
	}
	optimized, err := CompileOptimized(expr, lt, snaplen)
	if err == nil && bpf.SameVerdicts(plain, optimized) {
		return optimized, nil
	}
	return plain, nil
}

// CompileOptimized is what libpcap's optimiser makes of the expression.
func CompileOptimized(expr string, lt bpf.LinkType, snaplen int) (bpf.Program, error) {
	return compileIfAny(expr, lt, snaplen, true)
}

// CompileUnoptimized is the expression as it stands.
func CompileUnoptimized(expr string, lt bpf.LinkType, snaplen int) (bpf.Program, error) {
	return compileIfAny(expr, lt, snaplen, false)
}

func compileIfAny(expr string, lt bpf.LinkType, snaplen int, optimize bool) (bpf.Program, error) {
	if strings.TrimSpace(expr) == "" {
		return nil, nil
	}
	if strings.ContainsRune(expr, 0) { // C would see what is before it only
		return nil, &ExprError{expr, "it contains a NUL byte"}
	}
	if snaplen <= 0 || snaplen > maxSnaplen {
		snaplen = maxSnaplen
	}
	return compile(expr, lt, snaplen, optimize)
}

// Version names the libpcap in use, or says that there is none.
func Version() string { return version() }
