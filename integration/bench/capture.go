//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/netlab"
	"jailtap/internal/testutil"
)

const (
	captureRounds = 7
	ringKiB       = 2048
)

// A load is frames of one length that come in at one rate.
type load struct{ length, rate, frames int }

var loads = []load{
	{64, 1_000_000, 1_000_000},
	{512, 300_000, 150_000},
	{1500, 100_000, 50_000},
}

// A recorder is a program that captures to a file.
type recorder struct {
	name string
	// command gives the program that captures in namespace n, on bench, to file.
	command func(n *netlab.Namespace, file string) *exec.Cmd
	// captured is how many frames it says that it has captured.
	captured func(stdout, stderr []byte) (int, error)

	ready time.Duration // is long enough after its start
	// rest is how long after the last frame it has them all: what the kernel has not
	// handed over yet, tcpdump and dumpcap lose at the end.
	rest time.Duration
}

// A result is what the rounds of one recorder have shown.
type result struct {
	each []time.Duration // CPU for each frame, by round
	lost int             // frames, of all rounds
}

// benchCapture prints the table of recorders. tcpdump, that all are compared with, is
// the first.
func benchCapture(w io.Writer, l lab, jailtap string) error {
	b, err := newCaptureBench(l)
	if err != nil {
		return err
	}
	defer b.close()
	recorders := peers()
	for _, format := range []string{"pcap", "pcapng"} { // the engine runs where the frames come in
		recorders = append(recorders, jailtapRecorder(jailtap, format))
	}
	recorders = append(recorders, jailtapRecorder(jailtap, "pcap", "--hub", "always"))
	printCaptureHead(w)
	results, err := b.compare(recorders)
	if err != nil {
		return err
	}
	for i, load := range loads {
		printResults(w, load, recorders, results[i])
	}
	return nil
}

// A captureBench is where recorders are compared.
type captureBench struct {
	lab
	flood   *flood
	flooded time.Duration // what the last frames took to come in
	dir     string
}

func newCaptureBench(l lab) (b *captureBench, err error) {
	const ifname = "bench"
	b = &captureBench{lab: l}
	if err := l.from.Veth(l.to, ifname, ifname); err != nil {
		return nil, err
	}
	if b.flood, err = newFlood(l.to, ifname); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp(memoryDir(), "jailtap-bench-"); err != nil {
		b.flood.close()
		return nil, err
	}
	return b, nil
}

func (b *captureBench) close() {
	b.flood.close()
	os.RemoveAll(b.dir)
}

// compare gives every recorder a turn at each load in each round. The results are by
// load and recorder.
func (b *captureBench) compare(recorders []*recorder) ([][]result, error) {
	results := make([][]result, len(loads))
	for i := range results {
		results[i] = make([]result, len(recorders))
	}
	for range captureRounds {
		idle := make([]time.Duration, len(recorders)) // is the same at all loads
		for i, r := range recorders {
			var err error
			if idle[i], _, err = b.run(r, loads[0], 0); err != nil {
				return nil, err
			}
		}
		for l, load := range loads {
			for i, r := range recorders {
				busy, captured, err := b.run(r, load, load.frames)
				if err != nil {
					return nil, err
				}
				cost := max(busy-idle[i], 0)
				results[l][i].each = append(results[l][i].each, cost*picoseconds/time.Duration(max(captured, 1)))
				results[l][i].lost += load.frames - captured
			}
		}
	}
	return results, nil
}

// memoryDir is where files cost no disk: tmpfs, or else the usual place.
func memoryDir() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// captureScope is what is captured: one address, which the frames are from.
func captureScope() bpf.Scope { return bpf.Scope{Addrs: []netip.Prefix{single(match{}.jailAddr())}} }

const captureExpr = "udp"

func jailtapRecorder(program, format string, more ...string) *recorder {
	return &recorder{
		name: strings.Join(append([]string{"jailtap capture --format", format}, more...), " "),
		command: func(n *netlab.Namespace, file string) *exec.Cmd {
			args := []string{"capture", "--in-netns", n.Path, "-i", "bench", "-a", "10.0.0.1",
				"--format", format, "-B", fmt.Sprint(ringKiB), "--stats", "-", "-w", file}
			return exec.Command(program, append(append(args, more...), captureExpr)...)
		},
		captured: func(stdout, _ []byte) (int, error) {
			var stats struct{ Captured int }
			err := json.Unmarshal(stdout, &stats)
			return stats.Captured, err
		},
		ready: usuallyReady, rest: soonHandedOver,
	}
}

// conjunction is the scope and the expression, as one would give them to others.
func conjunction() string {
	return fmt.Sprintf("(%s) and (%s)", captureScope().Expr(bpf.Ethernet), captureExpr)
}

// peers are those that jailtap is compared with, tcpdump first.
func peers() []*recorder {
	list := []*recorder{tcpdumpRecorder()}
	if _, err := exec.LookPath("dumpcap"); err == nil {
		list = append(list, dumpcapRecorder())
	}
	return list
}

func tcpdumpRecorder() *recorder {
	return &recorder{
		name: "tcpdump",
		command: func(n *netlab.Namespace, file string) *exec.Cmd {
			return exec.Command("nsenter", "--net="+n.Path, "tcpdump", "-Z", "root", "-n", "-i", "bench",
				"-B", fmt.Sprint(ringKiB), "-w", file, conjunction())
		},
		captured: countIn(`(\d+) packets? captured`),
		ready:    usuallyReady, rest: 1100 * time.Millisecond, // its read timeout is a second
	}
}

func dumpcapRecorder() *recorder {
	return &recorder{
		name: "dumpcap",
		command: func(n *netlab.Namespace, file string) *exec.Cmd {
			return exec.Command("nsenter", "--net="+n.Path, "dumpcap", "-q", "-i", "bench",
				"-B", fmt.Sprint(ringKiB/1024), "-w", file, "-f", conjunction())
		},
		captured: countIn(`Packets captured: (\d+)`),
		ready:    500 * time.Millisecond, rest: 500 * time.Millisecond, // its read timeout is a quarter of a second
	}
}

// countIn finds the count on standard error.
func countIn(pattern string) func(stdout, stderr []byte) (int, error) {
	find := regexp.MustCompile(pattern)
	return func(_, stderr []byte) (int, error) {
		m := find.FindSubmatch(stderr)
		if m == nil {
			return 0, fmt.Errorf("no count in %q", stderr)
		}
		return strconv.Atoi(string(m[1]))
	}
}

// They are ready after some 20 ms, dumpcap after 200; and the kernel hands blocks over
// to jailtap after 50.
const usuallyReady, soonHandedOver = 250 * time.Millisecond, 250 * time.Millisecond

// run captures so many frames and returns the CPU time of the recorder.
func (b *captureBench) run(r *recorder, load load, frames int) (cpu time.Duration, captured int, err error) {
	file := filepath.Join(b.dir, "capture")
	defer os.Remove(file)
	var stdout, stderr bytes.Buffer
	cmd := r.command(b.to, file)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	time.Sleep(r.ready)
	start := time.Now()
	sendErr := b.flood.send(captureFrame(load.length), frames, load.rate)
	b.flooded = time.Since(start)
	if frames > 0 {
		time.Sleep(r.rest)
	}
	cmd.Process.Signal(unix.SIGINT)
	if err := cmd.Wait(); err != nil || sendErr != nil {
		return 0, 0, fmt.Errorf("%s: %v, %v: %s", r.name, sendErr, err, stderr.Bytes())
	}
	captured, err = r.captured(stdout.Bytes(), stderr.Bytes())
	if err != nil {
		err = fmt.Errorf("%s: %w", r.name, err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), captured, err
}

// captureFrame is a frame of so many bytes.
func captureFrame(length int) []byte {
	const headers = 14 + 20 + 8
	return testutil.UDP4(netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("192.0.2.1:2000"), make([]byte, length-headers))
}

func printCaptureHead(w io.Writer) {
	fmt.Fprintf(w, "\n## Capture\n\nFrames come in on a veth at a fixed rate, all of them in scope and `%s`, and are captured to a file in memory\n"+
		"with a ring of %d KiB. CPU time is that of the program, user and system, without what it takes to start and\n"+
		"end; medians of %d rounds. The last column is the median of the ratios to tcpdump in the same round. Lost\n"+
		"frames are of all rounds.\n", captureExpr, ringKiB, captureRounds)
}

func printResults(w io.Writer, load load, recorders []*recorder, results []result) {
	fmt.Fprintf(w, "\n%d bytes, %d frames at %d/s:\n\n", load.length, load.frames, load.rate)
	fmt.Fprint(w, "| program | CPU ns a packet | packets a CPU-second | lost | of tcpdump's CPU |\n| --- | ---: | ---: | ---: | ---: |\n")
	for i, r := range recorders {
		ratios := make([]float64, captureRounds)
		for round := range ratios {
			ratios[round] = float64(results[i].each[round]) / float64(max(results[0].each[round], 1))
		}
		ns := float64(median(slices.Clone(results[i].each))) / picoseconds
		fmt.Fprintf(w, "| `%s` | %.0f | %.0f | %d | %.2f |\n", r.name, ns, 1e9/max(ns, 1), results[i].lost, median(ratios))
	}
}
