package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
	"jailtap/loader"
)

// home is a namespace that stays when it is closed.
type home struct{ *testutil.Namespace }

func (home) Close() error { return nil }

// BenchmarkAsk is how long a client waits for a captive socket, beside what the
// kernel takes to make a packet socket and bind it.
func BenchmarkAsk(b *testing.B) {
	ns, there := testutil.NewNamespace(b), testutil.NewNamespace(b)
	ns.VethTo(b, there, "eth0", "eth0")
	b.Run("broker", func(b *testing.B) { benchmarkBroker(b, ns) })
	b.Run("kernel", func(b *testing.B) { benchmarkKernel(b, ns) })
}

func benchmarkBroker(b *testing.B, ns *testutil.Namespace) {
	name := fmt.Sprintf("jailtap-bench-%d", os.Getpid())
	w, err := loader.OpenWarden(loader.WardenConfig{Pins: "/sys/fs/bpf/" + name, Cgroup: filepath.Join(unified(b), name)})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	s := NewServer(Config{
		Captives: Wardens(w), Label: "bench", Log: slog.New(slog.DiscardHandler),
		Resolve: func(*Peer) (*Jail, error) {
			return &Jail{Name: "web", Namespace: home{ns}, Scope: newEstate(1), Limits: Limits{Rate: 1e6}}, nil
		},
	})
	defer s.Close()
	path := filepath.Join(b.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	defer func() { stop(); <-served }()
	measure(b, func() (*os.File, error) {
		c, err := Dial(path)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		_, socket, err := c.Capture(Request{Interface: "eth0", Filter: Filter{Program: ProgramOf(toStation3)}})
		return socket, err
	})
}

func benchmarkKernel(b *testing.B, ns *testutil.Namespace) {
	err := ns.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		const allInNetworkOrder = 0x0300 // htons(ETH_P_ALL), on little-endian machines
		measure(b, func() (*os.File, error) {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			return os.NewFile(uintptr(fd), "packet socket"), unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allInNetworkOrder, Ifindex: eth0.Index})
		})
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// measure reports the median. It rests now and then: the kernel frees programs late.
func measure(b *testing.B, ask func() (*os.File, error)) {
	var times []time.Duration
	for b.Loop() {
		began := time.Now()
		socket, err := ask()
		times = append(times, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
		socket.Close()
		if len(times)%64 == 0 {
			time.Sleep(30 * time.Millisecond)
		}
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "ms/median")
}

// unified is where cgroup2 is mounted.
func unified(b *testing.B) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			return f[1]
		}
	}
	testutil.Skip(b, "cgroup2 is not mounted")
	return ""
}
