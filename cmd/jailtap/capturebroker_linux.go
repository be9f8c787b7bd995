package main

import (
	"cmp"
	"context"
	"os"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader"
	"jailtap/loader/broker"
)

// brokered captures with a socket that the broker gives.
func (l *liveCapture) brokered(ctx context.Context) error {
	client, err := broker.Dial(l.flags.broker)
	if err != nil {
		return err
	}
	defer client.Close()
	request := l.request()
	grant, socket, err := client.Capture(request)
	if err != nil {
		return err
	}
	if l.tap, err = l.hold(client, grant, socket); err != nil {
		return err
	}
	defer l.tap.Close()
	l.words = "scope: " + grant.Scope
	return l.run(ctx)
}

// request asks for a ring of the size that is wanted, or else of what a capture with a
// socket of its own has.
func (l *liveCapture) request() broker.Request {
	ring := cmp.Or(l.flags.ringKiB<<10, loader.DefaultRing(l.flags.immediate))
	r := broker.Request{Interface: l.flags.iface, Immediate: l.flags.immediate, Ring: ring}
	r.Expression, r.Program, r.Snaplen = l.user.expr, broker.ProgramOf(l.user.program), l.user.snaplen
	return r
}

// hold reads the socket, which it closes if there is an error.
func (l *liveCapture) hold(client *broker.Client, g *broker.Grant, socket *os.File) (*loader.Tap, error) {
	defer socket.Close()
	program, err := g.Rest.Program.BPF()
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(socket.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	cfg := loader.HeldConfig{
		Interface: g.Interface, Index: g.Ifindex, LinkType: bpf.FileLinkType(g.LinkType),
		HasRing: g.Ring > 0, RingBytes: cmp.Or(g.Ring, l.flags.ringKiB<<10), Immediate: l.flags.immediate,
		Direction: loader.Direction(l.flags.direction), Snaplen: l.user.snaplen,
		Counts: func() (loader.CaptiveStats, error) {
			s, err := client.Stats()
			return loader.CaptiveStats(s), err
		},
	}
	if len(program) > 0 {
		cfg.Program = program
	}
	return loader.Hold(fd, cfg)
}

// mayOpenPacketSockets reports whether this process has CAP_NET_RAW.
func mayOpenPacketSockets() bool {
	var data [2]unix.CapUserData // version 3 has two
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return true // then let it try
	}
	return data[unix.CAP_NET_RAW/32].Effective&(1<<(unix.CAP_NET_RAW%32)) != 0
}
