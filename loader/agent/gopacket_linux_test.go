//go:build amd64 || arm64

package agent

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
	"jailtap/internal/testutil"
	"jailtap/loader"
)

// Here the sockets are real captive ones, and the program uses gopacket, which
// asks for all packets of all interfaces before it attaches anything.
func TestGopacketUnderTheAgentSeesTheScopesPacketsAndNoOthers(t *testing.T) {
	testutil.NeedRoot(t)
	here, there := testutil.NewNamespace(t), testutil.NewNamespace(t)
	here.VethTo(t, there, "tap", "out")
	ready, send, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	jail, other := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	cfg := Config{
		Namespace: here,
		Stdout:    send,
		Open: func() (Captives, func(), error) {
			w, err := loader.OpenWarden(loader.WardenConfig{})
			if err != nil {
				return nil, nil, err
			}
			fleet := NewFleet(w, here, bpf.Scope{Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}})
			return fleet, func() { fleet.Close(); w.Close() }, nil
		},
	}
	t.Setenv(programName, "gopacket")
	go func() {
		if status, err := Run(t.Context(), cfg, []string{"/proc/self/exe"}); status != 0 || err != nil {
			t.Errorf("%d, %v", status, err)
		}
		send.Close()
	}()
	expect(t, ready, "ready")
	there.Inject(t, "out",
		testutil.UDP4(other, netip.MustParseAddrPort("10.0.0.3:3"), []byte("foreign")),
		testutil.TCP4(other, jail, testutil.SYN, nil),
		testutil.UDP4(other, jail, []byte("first")),
		testutil.UDP4(other, netip.MustParseAddrPort("10.0.0.3:3"), []byte("foreign")),
		testutil.UDP4(jail, other, []byte("second")))
	expect(t, ready, "first")
	expect(t, ready, "second")
	if _, err := ready.Read(make([]byte, 1)); err == nil {
		t.Error("there was more")
	}
}

func init() {
	programs["gopacket"] = func([]string) {
		handle, err := pcapgo.NewEthernetHandle("tap")
		if err != nil {
			fmt.Println(err)
			return
		}
		raw := make([]xbpf.RawInstruction, len(udp))
		copy(raw, udp)
		if err := handle.SetBPF(raw); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("ready")
		for range 2 {
			data, _, err := handle.ReadPacketData()
			if err != nil {
				fmt.Println(err)
				return
			}
			fmt.Println(strings.TrimRight(string(data[42:]), "\x00"))
		}
	}
}
