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
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/internal/netlab"
	"jailtap/internal/testutil"
)

const (
	captureRounds = 5
	captureFrames = 400_000
	ringKiB       = "16384"
)

// A recorder is a program that captures to a file.
type recorder struct {
	name string
	// command gives the program that captures in namespace n, on bench, to file.
	command func(n *netlab.Namespace, file string) *exec.Cmd
	// captured is how many frames it says that it has captured.
	captured func(stdout, stderr []byte) (int, error)

	perCPU []float64 // frames a CPU-second, by round
	lost   int       // frames, of all rounds
}

// benchCapture prints the table of recorders.
func benchCapture(w io.Writer, l lab, jailtap string) error {
	const ifname = "bench"
	if err := l.from.Veth(l.to, ifname, ifname); err != nil {
		return err
	}
	send, err := newSender(l.from, ifname)
	if err != nil {
		return err
	}
	defer send.close()
	dir, err := os.MkdirTemp(memoryDir(), "jailtap-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	recorders := []*recorder{
		jailtapRecorder(jailtap, "cbpf"), jailtapRecorder(jailtap, "ebpf"), tcpdumpRecorder(),
	}
	for range captureRounds {
		for _, r := range recorders {
			if err := r.round(l, send, filepath.Join(dir, "capture")); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	printRecorders(w, recorders)
	return nil
}

// memoryDir is where files cost no disk: tmpfs, or else the usual place.
func memoryDir() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// captureScope is what is captured: one address, which the frames are from.
func captureScope() bpf.Scope { return scopeOf(1) }

const captureExpr = "udp"

func jailtapRecorder(program, engine string) *recorder {
	return &recorder{
		name: "jailtap capture --engine " + engine,
		command: func(n *netlab.Namespace, file string) *exec.Cmd {
			return exec.Command(program, "capture", "--in-netns", n.Path, "-i", "bench", "-a", "10.0.0.1",
				"--engine", engine, "-B", ringKiB, "--stats", "-", "-w", file, captureExpr)
		},
		captured: func(stdout, _ []byte) (int, error) {
			var stats struct{ Captured int }
			err := json.Unmarshal(stdout, &stats)
			return stats.Captured, err
		},
	}
}

var tcpdumpCaptured = regexp.MustCompile(`(\d+) packets? captured`)

func tcpdumpRecorder() *recorder {
	expr := fmt.Sprintf("(%s) and (%s)", captureScope().Expr(bpf.Ethernet), captureExpr)
	return &recorder{
		name: "tcpdump -w",
		command: func(n *netlab.Namespace, file string) *exec.Cmd {
			return exec.Command("nsenter", "--net="+n.Path, "tcpdump", "-Z", "root", "-n", "-i", "bench", "-B", ringKiB, "-w", file, expr)
		},
		captured: func(_, stderr []byte) (int, error) {
			m := tcpdumpCaptured.FindSubmatch(stderr)
			if m == nil {
				return 0, fmt.Errorf("no count in %q", stderr)
			}
			return strconv.Atoi(string(m[1]))
		},
	}
}

// round runs the recorder twice: over no frames, for what starting costs, and
// over many.
func (r *recorder) round(l lab, send *sender, file string) error {
	idle, _, err := r.run(l, send, file, 0)
	if err != nil {
		return err
	}
	busy, captured, err := r.run(l, send, file, captureFrames)
	if err != nil {
		return err
	}
	cost := max(busy-idle, time.Microsecond)
	r.perCPU = append(r.perCPU, float64(captured)/cost.Seconds())
	r.lost += captureFrames - captured
	return nil
}

// run captures so many frames and returns the CPU time of the recorder.
func (r *recorder) run(l lab, send *sender, file string, frames int) (cpu time.Duration, captured int, err error) {
	defer os.Remove(file)
	var stdout, stderr bytes.Buffer
	cmd := r.command(l.to, file)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	// Both programs are ready after some 20 ms.
	time.Sleep(500 * time.Millisecond)
	sendErr := send.paced(captureFrame(), frames)
	time.Sleep(500 * time.Millisecond)
	cmd.Process.Signal(unix.SIGINT)
	if err := cmd.Wait(); err != nil || sendErr != nil {
		return 0, 0, fmt.Errorf("%v, %v: %s", sendErr, err, stderr.Bytes())
	}
	captured, err = r.captured(stdout.Bytes(), stderr.Bytes())
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), captured, err
}

// captureFrame has 64 bytes.
func captureFrame() []byte {
	return testutil.UDP4(netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("192.0.2.1:2000"), make([]byte, 22))
}

func printRecorders(w io.Writer, recorders []*recorder) {
	fmt.Fprintf(w, "\n## Capture\n\n%d frames of 64 bytes in bursts on a veth pair, all of them in scope, `%s`, to a file in memory,\n"+
		"with a ring of %s KiB. Lost frames are of all %d rounds.\n\n", captureFrames, captureExpr, ringKiB, captureRounds)
	fmt.Fprint(w, "| program | packets a CPU-second | µs a packet | lost | of tcpdump's CPU |\n| --- | ---: | ---: | ---: | ---: |\n")
	tcpdump := median(recorders[len(recorders)-1].perCPU)
	for _, r := range recorders {
		m := median(r.perCPU)
		fmt.Fprintf(w, "| `%s` | %.0f | %.3f | %d | %.2f |\n", r.name, m, 1e6/m, r.lost, tcpdump/m)
	}
}
