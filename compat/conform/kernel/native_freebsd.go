package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/compat/conform"
	"jailtap/loader"
)

var engines = map[string]func() (conform.Engine, error){"native": openNative}

// native sends frames through a tap(4) interface and captures them with bpf(4).
type native struct {
	mu     sync.Mutex
	device *loader.Native
}

func openNative() (conform.Engine, error) {
	device, err := loader.OpenNative()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, &conform.CannotError{Reason: fmt.Sprintf("bpf(4) and tap(4) need root: %v", err)}
	case errors.Is(err, errors.ErrUnsupported):
		return nil, &conform.CannotError{Reason: err.Error()}
	case err != nil:
		return nil, err
	}
	return &native{device: device}, nil
}

func (e *native) Name() string       { return "native" }
func (e *native) Mode() conform.Mode { return conform.Receive }
func (e *native) Close() error       { return e.device.Close() }

// Metadata implements conform.Engine: FreeBSD has none.
func (e *native) Metadata(bpf.Packet) (bpf.Metadata, bool) { return bpf.Metadata{}, true }

func (e *native) Ask(f conform.Filter, pkts []bpf.Packet) ([]conform.Answer, error) {
	if f.LinkType != bpf.Ethernet {
		return nil, &conform.CannotError{Reason: "the interface is Ethernet"}
	}
	p, err := f.Compile(bpf.FreeBSD)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// Whether the program is taken can be told of any frame.
	if _, err := e.run(p, make([]byte, 60)); err != nil {
		return nil, err
	}
	answers := make([]conform.Answer, len(pkts))
	for i, pkt := range pkts {
		if answers[i].Cannot = conform.Cut(f.Program, pkt); answers[i].Cannot != "" {
			continue
		}
		if answers[i], err = e.run(p, pkt.Data); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func (e *native) run(p bpf.Program, frame []byte) (conform.Answer, error) {
	kept, err := e.device.Run(p, frame)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return conform.Answer{Cannot: "a frame on Ethernet has 14 bytes or more"}, nil
	case errors.Is(err, unix.EMSGSIZE):
		return conform.Answer{Cannot: "the frame is longer than the interface takes"}, nil
	case errors.Is(err, unix.EINVAL):
		return conform.Answer{}, fmt.Errorf("%w: %w", conform.ErrRefused, err)
	}
	return conform.Arrived(kept > 0, kept), err
}
