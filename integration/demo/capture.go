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
	"slices"
	"syscall"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// A capture is one run of jailtap on the bridge.
type capture struct {
	host   *host  // nil: unscoped
	engine string // as asked for; "hub" is ebpf, shared by all that ask for it

	cmd    *exec.Cmd
	file   string
	stdout bytes.Buffer // the statistics
	stderr bytes.Buffer
	done   chan error // gets what Wait returns
	stats  struct {
		Dropped uint64 `json:"dropped"`
	}
}

// captures are the reference, and each jail with each engine, and through the hub.
func (n *network) captures(jailtap, dir string) []*capture {
	list := []*capture{n.newCapture(jailtap, dir, nil, "auto")}
	for _, jail := range n.jails() {
		for _, engine := range []string{"cbpf", "ebpf", "hub"} {
			list = append(list, n.newCapture(jailtap, dir, jail, engine))
		}
	}
	return list
}

func (n *network) newCapture(jailtap, dir string, jail *host, engine string) *capture {
	c := &capture{host: jail, engine: engine, done: make(chan error, 1)}
	scope := []string{"--no-scope"}
	name := "unscoped"
	if jail != nil {
		scope = []string{"--netns", jail.Path}
		name = jail.name + "-" + engine
	}
	c.file = filepath.Join(dir, name+".pcapng")
	how := []string{"--engine", engine}
	if engine == "hub" {
		how = []string{"--hub", "always"}
	}
	args := slices.Concat([]string{"capture", "--in-netns", n.bridge.Path, "-i", "br0", "-B", "16384", "-w", c.file, "--stats", "-"}, how, scope)
	c.cmd = exec.Command(jailtap, args...)
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL} // also when the demo is killed
	return c
}

func (c *capture) String() string {
	if c.host == nil {
		return "the unscoped capture"
	}
	return fmt.Sprintf("the capture as %s with %s", c.host.name, c.engine)
}

// start runs the capture until stop, kill or the end of ctx.
func (c *capture) start(ctx context.Context) error {
	if err := os.Remove(c.file); err != nil && !errors.Is(err, os.ErrNotExist) { // of an earlier demo
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	go func() { c.done <- c.cmd.Wait() }()
	context.AfterFunc(ctx, c.kill)
	return nil
}

// begun reports whether it captures: jailtap writes a file's header then.
func (c *capture) begun() bool {
	info, err := os.Stat(c.file)
	return err == nil && info.Size() > 0
}

func (c *capture) kill() { c.cmd.Process.Kill() }

// ended is an error if the capture has ended, which it should not by itself.
func (c *capture) ended() error {
	select {
	case err := <-c.done:
		c.done <- err
		return fmt.Errorf("%v ended early (%v):\n%s", c, c.cmd.ProcessState, c.stderr.Bytes())
	default:
		return nil
	}
}

// stop ends the capture as ^C does, and reads its statistics.
func (c *capture) stop() error {
	c.cmd.Process.Signal(unix.SIGINT)
	select {
	case err := <-c.done:
		if err != nil {
			return fmt.Errorf("%v: %v:\n%s", c, err, c.stderr.Bytes())
		}
	case <-time.After(5 * time.Second):
		return fmt.Errorf("%v does not end on SIGINT", c)
	}
	if err := json.Unmarshal(c.stdout.Bytes(), &c.stats); err != nil {
		return fmt.Errorf("%v: statistics %q: %w", c, c.stdout.Bytes(), err)
	}
	if c.engine == "hub" && !bytes.Contains(c.stderr.Bytes(), []byte("it shares the interface's hub")) {
		c.engine = "no hub" // here; the capture has said why
	}
	return nil
}

// read returns the frames between the markers. The reader is gopacket's, a
// witness that does not share code with the writer.
func (c *capture) read() ([]string, error) {
	f, err := os.Open(c.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.file, err)
	}
	var frames []string
	for {
		data, info, err := r.ReadPacketData()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: packet %d: %w", c.file, len(frames), err)
		}
		if info.CaptureLength != info.Length {
			return nil, fmt.Errorf("%s: packet %d has %d of %d bytes", c.file, len(frames), info.CaptureLength, info.Length)
		}
		frames = append(frames, string(data))
	}
	frames, err = between(frames, string(startMarker), string(endMarker))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.file, err)
	}
	return frames, nil
}
