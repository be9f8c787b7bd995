//go:build cgo

package pcapexpr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
)

// What tcpdump -ddd -s 96 'ip' printed (tcpdump 4.99.3, libpcap 1.10.3).
var ipProgram = bpf.Program{{Op: 40, K: 12}, {Op: 21, Jf: 1, K: 0x800}, {Op: 6, K: 96}, {Op: 6}}

func TestExpressionsCompileAsInTcpdump(t *testing.T) {
	p, err := Compile("ip", bpf.Ethernet, 96)
	if err != nil || !slices.Equal(p, ipProgram) {
		t.Errorf("got %v, %v; want %v", p, err, ipProgram)
	}
	whole, err := Compile("ip", bpf.Ethernet, 0)
	if want := (xbpf.RawInstruction{Op: 6, K: 262144}); err != nil || !slices.Contains(whole, want) {
		t.Errorf("got %v, %v; want %v in it", whole, err, want)
	}
}

func TestEveryLinkTypeIsKnownToLibpcap(t *testing.T) {
	for _, lt := range bpf.LinkTypes() {
		if p, err := Compile("udp port 53", lt, 0); err != nil || len(p) == 0 {
			t.Errorf("%v: %v, %v", lt, p, err)
		}
	}
}

func TestWithoutTheOptimizerProgramsAreLonger(t *testing.T) {
	const expr = "host 10.0.0.1 and host 10.0.0.1"
	short, err := Compile(expr, bpf.Ethernet, 0)
	long, err2 := CompileUnoptimized(expr, bpf.Ethernet, 0)
	if err != nil || err2 != nil || len(short) >= len(long) {
		t.Errorf("%d (%v) and %d (%v) instructions", len(short), err, len(long), err2)
	}
}

func TestRefusedExpressionsAreShownWithLibpcapsWords(t *testing.T) {
	for expr, want := range map[string]string{
		"ip and and":         "syntax error",
		"arp) or (ip6":       "syntax error",
		"port 53\x00 or ip":  "NUL",
		"ether multicast or": "syntax error",
	} {
		_, err := Compile(expr, bpf.Ethernet, 0)
		var e *ExprError
		if !errors.As(err, &e) || e.Expr != expr || !strings.Contains(e.Msg, want) {
			t.Errorf("Compile(%q): %v, want an ExprError with %q", expr, err, want)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", expr)) {
			t.Errorf("the error does not show the expression: %v", err)
		}
	}
	if _, err := Compile("multicast", bpf.Raw, 0); err == nil {
		t.Error("libpcap knows no multicast on RAW, but compiled it")
	}
}

func TestExpressionsCompileFromManyGoroutines(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			expr := fmt.Sprintf("ip host 10.0.0.%d", i)
			for range 50 {
				p, err := Compile(expr, bpf.Ethernet, 0)
				if err != nil || !slices.ContainsFunc(p, func(ins xbpf.RawInstruction) bool { return ins.K == 0x0a000000+uint32(i) }) {
					t.Errorf("%s: %v, %v", expr, p, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestTheVersionNamesLibpcap(t *testing.T) {
	if v := Version(); !strings.Contains(v, "libpcap") {
		t.Errorf("Version() = %q", v)
	}
}
