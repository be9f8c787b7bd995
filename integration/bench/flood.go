//go:build linux

package main

import (
	"errors"
	"net"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"jailtap/internal/netlab"
)

// A flood has frames come in on an interface at a rate that no socket can send at:
// the kernel runs an XDP program on them that lets them pass
// (Documentation/bpf/bpf_prog_run.rst, live frames).
type flood struct {
	ns       *netlab.Namespace
	ifindex  int
	pass     *ebpf.Program
	attached link.Link // without a program on it a veth has no queues to run one on
}

func newFlood(n *netlab.Namespace, ifname string) (*flood, error) {
	return newFloodOf(asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}, n, ifname)
}

// newFloodOf is newFlood with another program, which sees each frame before it passes.
func newFloodOf(pass asm.Instructions, n *netlab.Namespace, ifname string) (*flood, error) {
	f := &flood{ns: n}
	var err error
	f.pass, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual MIT/GPL", Instructions: pass})
	if err != nil {
		return nil, err
	}
	err = n.Do(func() error {
		on, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		f.ifindex = on.Index
		f.attached, err = link.AttachXDP(link.XDPOptions{Program: f.pass, Interface: on.Index})
		return err
	})
	if err != nil {
		f.pass.Close()
		return nil, err
	}
	return f, nil
}

const xdpPass = 2 // XDP_PASS of linux/bpf.h

// xdpMD is struct xdp_md of linux/bpf.h.
type xdpMD struct{ Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32 }

// send has the frame come in so many times, at a rate a second.
func (f *flood) send(frame []byte, times, rate int) error {
	const atOnce, atLeast = 256, 32
	return f.ns.Do(func() error {
		defer withoutSignals()()
		start := time.Now()
		for sent := 0; sent < times; {
			due := min(times, int(time.Since(start).Seconds()*float64(rate)))
			n := min(due-sent, atOnce)
			if n < atLeast && due < times {
				continue // what is left of this CPU would be too little to sleep
			}
			if err := f.burst(frame, n); err != nil {
				return err
			}
			sent += n
		}
		return nil
	})
}

// burst has the frame come in so many times, at once. The thread must be in the namespace,
// and without signals.
func (f *flood) burst(frame []byte, times int) error {
	_, err := f.pass.Run(&ebpf.RunOptions{
		Data:    frame,
		Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(f.ifindex)},
		Repeat:  uint32(times), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES,
	})
	return err
}

// withoutSignals holds signals back from this thread until restore: a run that one
// interrupts begins anew, and nobody would know how many frames there were.
func withoutSignals() (restore func()) {
	runtime.LockOSThread()
	all, before := unix.Sigset_t{}, unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before)
	return func() {
		unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
		runtime.UnlockOSThread()
	}
}

func (f *flood) close() error { return errors.Join(f.attached.Close(), f.pass.Close()) }
