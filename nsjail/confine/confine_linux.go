package confine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Attach holds the sockets that are made in a cgroup from now on to addresses. cgroup
// is its directory. The rules need nobody to keep them, and go with the cgroup: that is
// also how the caller takes back those that are there when it fails.
func Attach(cgroup string, addrs []netip.Addr) error {
	var rules rulesObjects
	if err := loadRulesObjects(&rules, nil); err != nil {
		return explain("load the rules for shared jails", err)
	}
	defer rules.Close()
	if err := put(rules.Addresses, addrs); err != nil {
		return err
	}
	if err := setFirst(rules.Jails, addrs); err != nil {
		return err
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	for kind, program := range rules.places() {
		err := link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: int(dir.Fd()), Program: program, Attach: kind, Flags: unix.BPF_F_ALLOW_MULTI})
		if err != nil {
			return explain(fmt.Sprintf("attach the rule %v of shared jails", kind), err)
		}
	}
	return nil
}

// places are where the programs belong.
func (r *rulesObjects) places() map[ebpf.AttachType]*ebpf.Program {
	return map[ebpf.AttachType]*ebpf.Program{
		ebpf.AttachCGroupInetSockCreate: r.Create,
		ebpf.AttachCGroupSetsockopt:     r.Options,
		ebpf.AttachCGroupInet4Bind:      r.Bind4,
		ebpf.AttachCGroupInet6Bind:      r.Bind6,
		ebpf.AttachCGroupInet4Connect:   r.Connect4,
		ebpf.AttachCGroupInet6Connect:   r.Connect6,
		ebpf.AttachCGroupUDP4Sendmsg:    r.Sendmsg4,
		ebpf.AttachCGroupUDP6Sendmsg:    r.Sendmsg6,
		ebpf.AttachCGroupInetIngress:    r.Ingress,
		ebpf.AttachCGroupInetEgress:     r.Egress,
	}
}

// explain adds what is usually missing.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w: it needs CAP_BPF and CAP_NET_ADMIN (run with sudo)", what, unix.EPERM)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w: it needs Linux 5.18, cgroup v2 and CONFIG_CGROUP_BPF", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// setFirst tells the rules what wildcards and loopback mean.
func setFirst(jails *ebpf.Map, addrs []netip.Addr) error {
	var j rulesJail
	for _, a := range addrs {
		first, n := &j.First6, &j.N6
		if a.Is4() {
			first, n = &j.First4, &j.N4
		}
		if *n++; *n == 1 {
			*first = inKernel(a)
		}
	}
	// A host without IPv6 has no such file, and no sockets that it is about.
	if only, _ := os.ReadFile("/proc/sys/net/ipv6/bindv6only"); strings.TrimSpace(string(only)) == "1" {
		j.V6only = 1
	}
	return jails.Put(uint32(0), &j)
}

// put adds addresses.
func put(to *ebpf.Map, addrs []netip.Addr) error {
	for _, a := range addrs {
		if err := to.Put(inKernel(a), uint8(1)); err != nil {
			return fmt.Errorf("rules for shared jails: address %v: %w", a, err)
		}
	}
	return nil
}

// inKernel is struct address of confine.bpf.c.
func inKernel(a netip.Addr) (k rulesAddress) {
	bytes := a.As16()
	for i := range k.W {
		k.W[i] = binary.NativeEndian.Uint32(bytes[4*i:])
	}
	return k
}
