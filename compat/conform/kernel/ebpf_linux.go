package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
	"jailtap/compat/conform"
)

// testRuns translates programs and has the kernel run them on packets by
// BPF_PROG_TEST_RUN, as traffic-control programs: those start at the link-level
// header.
type testRuns struct{}

func openEBPF() (conform.Engine, error) {
	const retK = 0x06
	prog, err := loadTranslated(bpf.Program{{Op: retK, K: 1}})
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, &conform.CannotError{Reason: "test runs of eBPF programs need root (CAP_BPF and CAP_NET_ADMIN)"}
	case errors.Is(err, errors.ErrUnsupported):
		return nil, &conform.CannotError{Reason: fmt.Sprintf("this kernel has no eBPF: %v", err)}
	case err != nil:
		return nil, err
	}
	return testRuns{}, prog.Close()
}

func (testRuns) Name() string       { return "ebpf" }
func (testRuns) Mode() conform.Mode { return conform.Linux }
func (testRuns) Close() error       { return nil }

// Metadata is that of a frame on the loopback interface
// (bpf_prog_test_run_skb of net/bpf/test_run.c).
func (testRuns) Metadata(pkt bpf.Packet) (m bpf.Metadata, known bool) {
	const headerLen, firstEtherType = 14, 0x600
	if len(pkt.Data) < headerLen {
		return m, false
	}
	m = bpf.Metadata{Protocol: binary.BigEndian.Uint16(pkt.Data[12:]), Ifindex: 1, Hatype: unix.ARPHRD_LOOPBACK, NetOff: headerLen}
	switch {
	case pkt.Data[0]&1 != 0:
		m.PktType = unix.PACKET_MULTICAST
		if [6]byte(pkt.Data) == [6]byte{255, 255, 255, 255, 255, 255} {
			m.PktType = unix.PACKET_BROADCAST
		}
	case [6]byte(pkt.Data) != [6]byte{}:
		m.PktType = unix.PACKET_OTHERHOST
	}
	return m, m.Protocol >= firstEtherType
}

func (testRuns) Ask(f conform.Filter, pkts []bpf.Packet) ([]conform.Answer, error) {
	p, err := f.Compile(bpf.Linux)
	if err != nil {
		return nil, err
	}
	// eBPF has no opinion about classic programs; the loader goes by Linux's rules.
	if err := p.Validate(bpf.Linux); err != nil {
		return nil, conform.Explain(err)
	}
	throttle()
	prog, err := loadTranslated(p)
	if err != nil {
		return nil, err
	}
	defer prog.Close()
	answers := make([]conform.Answer, len(pkts))
	for i, pkt := range pkts {
		if answers[i].Cannot = conform.Cut(f.Program, pkt); answers[i].Cannot != "" {
			continue
		}
		verdict, err := prog.Run(&cilium.RunOptions{Data: pkt.Data})
		switch {
		case errors.Is(err, unix.EINVAL), len(pkt.Data) == 0:
			answers[i].Cannot = "a test run takes no packet that is shorter than an Ethernet header, cut in an IP header, or longer than a page"
		case err != nil:
			return nil, fmt.Errorf("test run on a packet of %d bytes: %w", len(pkt.Data), err)
		default:
			answers[i] = conform.Verdict(verdict)
		}
	}
	return answers, nil
}

func loadTranslated(p bpf.Program) (*cilium.Program, error) {
	body, err := ebpf.Translate(p)
	if err != nil {
		return nil, err
	}
	prog, err := cilium.NewProgram(&cilium.ProgramSpec{Type: cilium.SchedCLS, Instructions: body, License: "Apache-2.0"})
	if err != nil {
		return nil, fmt.Errorf("load a translated program: %w", err)
	}
	return prog, nil
}
