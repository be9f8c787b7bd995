//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader"
	"jailtap/loader/broker"
)

const (
	setupRounds  = 9
	memoryRounds = 7

	// Captures of one kind are asked for in a row. What has been idle for a while may be slow
	// at first, by as much as is to be measured: where the kernel watches which pages are used
	// (DAMON, say every half a second), each that is used next costs a few µs then.
	setupRun = 5
)

// setupVariable is set in the process that asks for captures, to its setupConfig.
const setupVariable = "JAILTAP_BENCH_SETUP"

// A setupConfig says where to ask, and how often.
type setupConfig struct {
	Interface, Broker, Handover string
	Rounds, Run                 int
}

// An asking is what one capture took from when it was asked for.
type asking struct {
	Ready time.Duration // packets can come in
	First time.Duration // one has been read
}

// benchSetup prints how long captures take to be there, and how much memory they take.
func benchSetup(w io.Writer, l lab, jailtap string, rounds, run, memoryRounds int) error {
	const ifname = "setup"
	if err := l.from.Veth(l.to, ifname, ifname); err != nil {
		return err
	}
	stop, err := sendSteadily(l, ifname)
	if err != nil {
		return err
	}
	askings, err := askInNamespace(l, jailtap, setupConfig{Interface: ifname, Rounds: rounds, Run: run})
	if err := errors.Join(err, stop()); err != nil {
		return err
	}
	printAskings(w, askings, rounds, run)
	return benchMemory(w, l, jailtap, memoryRounds)
}

// between is the time from one frame to the next.
const between = 50 * time.Microsecond

// sendSteadily sends frames in scope until stop.
func sendSteadily(l lab, ifname string) (stop func() error, err error) {
	s, err := newSender(l.from, ifname)
	if err != nil {
		return nil, err
	}
	var stopped atomic.Bool
	ended := make(chan error)
	go func() {
		// Go's own timers have a millisecond at best when nothing else is to do.
		defer withoutSignals()()
		unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // 50 µs otherwise
		var err error
		for err == nil && !stopped.Load() {
			err = s.frames(captureFrame(64), 1)
			unix.Nanosleep(&unix.Timespec{Nsec: int64(between)}, nil)
		}
		ended <- err
	}()
	return func() error {
		stopped.Store(true)
		defer s.close()
		return <-ended
	}, nil
}

// askInNamespace has captures asked for by a process of the namespace, as the daemon
// takes clients for what their namespace is.
func askInNamespace(l lab, jailtap string, cfg setupConfig) (askings map[string][]asking, err error) {
	d, err := startDaemon(jailtap)
	if err != nil {
		return nil, err
	}
	cfg.Broker = d.socket
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, errors.Join(err, d.end())
	}
	self, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, d.end())
	}
	cmd := exec.Command("nsenter", "--net="+l.to.Path, self)
	cmd.Env = append(os.Environ(), setupVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &askings)
	}
	return askings, errors.Join(err, d.end())
}

// A daemon is jailtap serve with guards of its own.
type daemon struct {
	cmd                       *exec.Cmd
	dir, socket, pins, cgroup string
	log                       bytes.Buffer
}

func startDaemon(jailtap string) (d *daemon, err error) {
	d = &daemon{pins: fmt.Sprint("/sys/fs/bpf/jailtap-bench-", os.Getpid())}
	mount, err := unifiedCgroup()
	if err != nil {
		return nil, err
	}
	// It has given up the right to make one wherever root may, and makes its own in
	// what systemd would delegate to it.
	delegated := filepath.Join(mount, filepath.Base(d.pins))
	d.cgroup = filepath.Join(delegated, "captives")
	if err := os.Mkdir(delegated, 0o755); err != nil {
		return nil, err
	}
	if d.dir, err = os.MkdirTemp("", "jailtap-bench-"); err != nil {
		return nil, errors.Join(err, os.Remove(delegated))
	}
	d.socket = filepath.Join(d.dir, "s")
	d.cmd = exec.Command(jailtap, "serve", "-a", captureScope().Addrs[0].Addr().String(),
		"--socket", d.socket, "--pins", d.pins, "--cgroup", d.cgroup)
	d.cmd.Stderr = &d.log
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	for range 100 { // 5 s
		if c, err := broker.Dial(d.socket); err == nil {
			return d, c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("%s does not listen", d.cmd), d.end())
}

// end ends the daemon, which then takes its guards with it: the kernel lists sockets
// for a while after they were closed.
func (d *daemon) end() (err error) {
	time.Sleep(500 * time.Millisecond)
	d.cmd.Process.Signal(unix.SIGTERM)
	if err = d.cmd.Wait(); err != nil {
		err = fmt.Errorf("%s: %w: %s", d.cmd, err, d.log.Bytes())
	}
	return errors.Join(err, d.remove())
}

func (d *daemon) remove() error {
	return errors.Join(os.RemoveAll(d.dir), os.Remove(filepath.Dir(d.cgroup)))
}

// unifiedCgroup is where cgroup v2 is mounted.
func unifiedCgroup() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}

// An asker asks for captures of one kind.
type asker struct {
	name string
	bare string // the name of that which it is compared with; "": itself
	ask  func() (capture, error)
}

// A capture is one that packets can come into.
type capture interface {
	first() error // returns when a packet was read
	close() error
}

// runAskers asks for captures in turns and prints what they took.
func runAskers(config string) error {
	var cfg setupConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	end, err := cfg.startHandover()
	if err != nil {
		return err
	}
	defer end()
	askers, err := cfg.askers()
	if err != nil {
		return err
	}
	askings := map[string][]asking{}
	for range cfg.Rounds {
		for _, a := range askers {
			for range cfg.Run {
				took, err := a.once()
				if err != nil {
					return fmt.Errorf("%s: %w", a.name, err)
				}
				askings[a.name] = append(askings[a.name], took)
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(askings)
}

// once asks for one capture. It rests afterwards: the kernel is busy for some grace
// periods with what is closed, and would be with the next one's ring.
func (a asker) once() (took asking, err error) {
	defer time.Sleep(50 * time.Millisecond)
	start := time.Now()
	c, err := a.ask()
	if err != nil {
		return took, err
	}
	took.Ready = time.Since(start)
	err = c.first()
	took.First = time.Since(start)
	return took, errors.Join(err, c.close())
}

// A setupKind is of captures, by when the kernel hands over packets that are few.
type setupKind struct {
	name                       string
	immediate                  bool
	ring, block, timeoutMillis int // as loader makes them
}

var setupKinds = []setupKind{
	{"after 50 ms", false, 2 << 20, 256 << 10, 50},
	{"after 1 ms", true, 4 << 20, 128 << 10, 1},
}

// Names of askers.
const (
	bareCalls  = "bare calls"
	openAuto   = "`loader.Open`, engine auto"
	openEBPF   = "`loader.Open`, engine ebpf"
	fromDaemon = "`jailtap serve`"
	handedOver = "a ready ring, handed over"
)

func (cfg setupConfig) askers() (list []asker, err error) {
	filter, ifindex, err := cfg.bareParts()
	if err != nil {
		return nil, err
	}
	for i, k := range setupKinds {
		open := func(e loader.Engine) func() (capture, error) {
			return func() (capture, error) {
				tap, err := loader.Open(loader.Config{Interface: cfg.Interface, Scope: captureScope(), Engine: e, Immediate: k.immediate})
				return tapCapture{tap}, err
			}
		}
		bare := k.name + bareCalls
		list = append(list,
			asker{bare, bare, func() (capture, error) { return bareCapture(k, filter, ifindex) }},
			asker{k.name + openAuto, bare, open(loader.Auto)},
			asker{k.name + openEBPF, bare, open(loader.EBPF)},
			asker{k.name + fromDaemon, bare, func() (capture, error) { return cfg.fromDaemon(k.ring, k.immediate) }},
			asker{k.name + handedOver, bare, func() (capture, error) { return cfg.handedOver(i) }},
		)
	}
	return list, nil
}

// fromDaemon asks the daemon for a captive socket with its ring, as jailtap capture
// does without privileges.
func (cfg setupConfig) fromDaemon(ring int, immediate bool) (capture, error) {
	c, err := broker.Dial(cfg.Broker)
	if err != nil {
		return nil, err
	}
	g, socket, err := c.Capture(broker.Request{Interface: cfg.Interface, Ring: ring, Immediate: immediate})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	fd, err := unix.FcntlInt(socket.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(err, socket.Close(), c.Close())
	}
	tap, err := loader.Hold(fd, loader.HeldConfig{
		Interface: g.Interface, Index: g.Ifindex, LinkType: bpf.FileLinkType(g.LinkType), HasRing: true, RingBytes: g.Ring, Immediate: immediate,
	})
	if err != nil {
		return nil, errors.Join(err, socket.Close(), c.Close())
	}
	return givenCapture{tapCapture{tap}, socket, c}, nil
}

// A givenCapture keeps its connection, as jailtap capture does, to ask for counts.
type givenCapture struct {
	tapCapture
	socket *os.File
	client *broker.Client
}

func (c givenCapture) close() error {
	return errors.Join(c.tapCapture.close(), c.socket.Close(), c.client.Close())
}

// A tapCapture is a capture of ours.
type tapCapture struct{ tap *loader.Tap }

var errEnough = errors.New("enough")

func (c tapCapture) first() error {
	err := c.tap.Read(context.Background(), func(*loader.Packet) error { return errEnough })
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (c tapCapture) close() error { return c.tap.Close() }

func printAskings(w io.Writer, askings map[string][]asking, rounds, run int) {
	fmt.Fprintf(w, "\n## Set-up\n\nms from asking for a capture until packets can come in, and until the first one has been read, of which one comes in\n"+
		"every %v or so; medians of %d rounds of %d in a row, and of the ratios to the bare system calls of the same round. These are\n"+
		"socket, filter of the same instructions, ring of the same size, mapping, bind. For a ring the kernel waits for a\n"+
		"grace period, %s. It hands over blocks that are not full after a time, which jailtap has 1 ms\n"+
		"with `--immediate`, else 50 ms. Of the daemon all but the first get spare sockets (BROKER.md): beside it what is\n"+
		"the least that takes, a process that hands over a ring which is ready to whoever connects, without asking who that is.\n\n", between, rounds, run, gracePeriods())
	fmt.Fprint(w, "| few packets are handed over | capture | ready | first packet | ready, of bare calls | first, of bare calls |\n"+
		"| --- | --- | ---: | ---: | ---: | ---: |\n")
	for _, k := range setupKinds {
		for _, name := range []string{bareCalls, openAuto, openEBPF, fromDaemon, handedOver} {
			ready, readyRatio := compareAskings(askings[k.name+name], askings[k.name+bareCalls], func(a asking) time.Duration { return a.Ready })
			first, firstRatio := compareAskings(askings[k.name+name], askings[k.name+bareCalls], func(a asking) time.Duration { return a.First })
			fmt.Fprintf(w, "| %s | %s | %.2f | %.2f | %.2f | %.2f |\n", k.name, name, ready, first, readyRatio, firstRatio)
		}
	}
}

// gracePeriods says of which kind they are on this machine (kernel-parameters.txt,
// rcupdate.rcu_expedited).
func gracePeriods() string {
	if expedited, _ := os.ReadFile("/sys/kernel/rcu_expedited"); strings.TrimSpace(string(expedited)) == "1" {
		return "which is expedited here (rcu_expedited)"
	}
	return "which is a usual one here"
}

// compareAskings is the median in ms, and that of the ratios.
func compareAskings(took, bare []asking, of func(asking) time.Duration) (millis, ratio float64) {
	var each, ratios []float64
	for i := range took {
		each = append(each, ms(of(took[i])))
		ratios = append(ratios, float64(of(took[i]))/float64(of(bare[i])))
	}
	return median(each), median(ratios)
}

// benchMemory prints how much memory recorders have while packets come in.
func benchMemory(w io.Writer, l lab, jailtap string, rounds int) error {
	b, err := newCaptureBench(l)
	if err != nil {
		return err
	}
	defer b.close()
	recorders := append(peers(), jailtapRecorder(jailtap, "pcap"), jailtapRecorder(jailtap, "pcap", "--engine", "ebpf"),
		jailtapRecorder(jailtap, "pcap", "--hub", "always"))
	besides := make([][]float64, len(recorders))
	rings := make([][]float64, len(recorders))
	for range rounds {
		for i, r := range recorders {
			all, ring, err := b.memory(r)
			if err != nil {
				return err
			}
			besides[i], rings[i] = append(besides[i], mib(all-ring)), append(rings[i], mib(ring))
		}
	}
	fmt.Fprintf(w, "\nMemory of a running capture to a file, resident, after %d packets; medians of %d.\n\n", memoryFrames, rounds)
	fmt.Fprint(w, "| program | MiB without its ring | ring as mapped |\n| --- | ---: | ---: |\n")
	for i, r := range recorders {
		fmt.Fprintf(w, "| `%s` | %.1f | %.1f |\n", r.name, median(besides[i]), median(rings[i]))
	}
	return nil
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// memoryFrames are captured before the memory is looked at.
const memoryFrames = 200_000

// memory is what a recorder has resident when it has captured some frames, and how much
// of it is its ring.
func (b *captureBench) memory(r *recorder) (all, ring int, err error) {
	file := filepath.Join(b.dir, "capture")
	defer os.Remove(file)
	var stderr bytes.Buffer
	cmd := r.command(b.to, file)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	time.Sleep(r.ready)
	err = b.flood.send(captureFrame(64), memoryFrames, 400_000)
	all, ring, err2 := resident(cmd.Process.Pid)
	cmd.Process.Signal(unix.SIGINT)
	if err := errors.Join(err, err2, cmd.Wait()); err != nil {
		return 0, 0, fmt.Errorf("%s: %w: %s", r.name, err, stderr.Bytes())
	}
	return all, ring, nil
}

// resident is how many bytes a process has in memory, and how many of these are rings
// that it shares with the kernel (proc_pid_smaps(5)).
func resident(pid int) (all, rings int, err error) {
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, 0, err
	}
	ring := false
	for line := range strings.Lines(string(smaps)) {
		fields := strings.Fields(line)
		if len(fields) >= 5 && strings.Contains(fields[0], "-") { // a mapping begins
			name := fields[len(fields)-1]
			ring = strings.HasPrefix(name, "socket:[") || name == "anon_inode:bpf-map"
		}
		if fields[0] != "Rss:" {
			continue
		}
		kib, err := strconv.Atoi(fields[1])
		if err != nil {
			return 0, 0, fmt.Errorf("%q: %w", line, err)
		}
		if all += kib << 10; ring {
			rings += kib << 10
		}
	}
	return all, rings, nil
}
