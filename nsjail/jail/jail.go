// Package jail makes jails out of Linux's namespaces: it creates them, runs
// commands in them, lists and removes them.
//
// A jail is a process that waits (init.c), the first of a process namespace; what
// else is in the jail are the namespaces that it is in, a cgroup, and addresses.
// No daemon looks after it. What there is of a jail is written to its record,
// before it is made: so the next command finds what one that was killed has left,
// and removes it.
//
// # Security considerations
//
// User 0 in a jail is user 0 of the host, without the capabilities that make it
// mighty. What else keeps it inside:
//   - its root is a mount of its own, without devices and set-user-ID, and the
//     host's mounts are gone, not just out of reach (pivot_root(2)). No path of a
//     jail is followed by the host without openat2(2)'s RESOLVE_NO_SYMLINKS;
//   - of /proc it sees its own processes, and of the rest what anybody may read, to
//     read only;
//   - no_new_privs, and a seccomp filter without the system calls that make
//     namespaces, mount, load programs into the kernel, or reach keys;
//   - what is executed in it comes from a sealed file in memory, holds no
//     descriptor of the host, and cannot be traced before it has given up what
//     the jail must not have.
//
// A root directory that other users of the host can reach lets them execute what a
// jail's root has made set-user-ID: keep it in a directory of root's alone.
//
// A shared jail has the host's abstract Unix sockets (unix(7)); a vnet jail has its
// own.
package jail

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Network says which network stack a jail has.
type Network string

const (
	NoNetwork Network = "none"   // one of its own with nothing in it but loopback
	Host      Network = "host"   // the host's, without restriction
	Shared    Network = "shared" // the host's, of which it has addresses of its own
	VNET      Network = "vnet"   // one of its own
)

// A Spec says what a jail is to be.
type Spec struct {
	Name     string `json:"name"`
	JID      int    `json:"jid,omitempty"` // 0: the next one
	Path     string `json:"path"`          // its root directory, absolute
	Hostname string `json:"hostname,omitempty"`
	Domain   string `json:"domain,omitempty"`
	Persist  bool   `json:"persist,omitempty"` // it stays when its last process has ended

	Network   Network   `json:"network"`
	Addresses []Address `json:"addresses,omitempty"`
	Link      Link      `json:"link,omitzero"` // of a vnet jail

	Mounts []Mount `json:"mounts,omitempty"`
	Devfs  bool    `json:"devfs,omitempty"`  // without a directory /dev it is an error
	Procfs bool    `json:"procfs,omitempty"` // the same for /proc
	Limits Limits  `json:"limits,omitzero"`

	RawSockets      bool `json:"raw_sockets,omitempty"`       // CAP_NET_RAW, for vnet jails
	NoReservedPorts bool `json:"no_reserved_ports,omitempty"` // no CAP_NET_BIND_SERVICE
	BPF             bool `json:"bpf,omitempty"`               // packet sockets are captive ones

	Commands Commands `json:"commands,omitzero"`

	// Params are the parameters that the jail was made from, for lists.
	Params []Param `json:"params,omitempty"`
}

// A Param is a parameter as jail(8) knows it.
type Param struct {
	Name   string   `json:"name"`
	Values []string `json:"values,omitempty"`
}

// An Address is one of a jail. That of a shared jail is added to the interface;
// without an interface the host has to have it.
type Address struct {
	Interface string       `json:"interface,omitempty"`
	Prefix    netip.Prefix `json:"prefix"` // the address with the length of its network
}

// A Link is how a vnet jail is connected.
type Link struct {
	Bridge     string       `json:"bridge,omitempty"`     // on the host; "": none
	Gateways   []netip.Addr `json:"gateways,omitempty"`   // default routes, one of a family at most
	Interfaces []string     `json:"interfaces,omitempty"` // that move into the jail
	NAT        bool         `json:"nat,omitempty"`        // beyond the bridge it has the host's address
}

// A Mount is a file system that a jail has in its tree.
type Mount struct {
	Type    string   `json:"type"`   // nullfs or tmpfs
	Source  string   `json:"source"` // of nullfs: a directory of the host
	Target  string   `json:"target"` // below the jail's root
	Options []string `json:"options,omitempty"`
}

// Limits are those of the jail's cgroup; 0 is none.
type Limits struct {
	Memory int64 `json:"memory,omitempty"` // bytes
	PIDs   int64 `json:"pids,omitempty"`   // processes and threads
	CPU    int   `json:"cpu,omitempty"`    // percent of one CPU
}

// Commands are what is run when a jail starts and stops, in the order of
// jail(8). All but Command are lines for sh(1).
type Commands struct {
	Prepare   []string `json:"prepare,omitempty"`   // on the host, before anything is made
	Prestart  []string `json:"prestart,omitempty"`  // on the host, before the jail is made
	Created   []string `json:"created,omitempty"`   // on the host, when the jail is there
	Start     []string `json:"start,omitempty"`     // in the jail
	Command   []string `json:"command,omitempty"`   // in the jail: a program and its arguments
	Poststart []string `json:"poststart,omitempty"` // on the host
	Prestop   []string `json:"prestop,omitempty"`   // on the host
	Stop      []string `json:"stop,omitempty"`      // in the jail
	Poststop  []string `json:"poststop,omitempty"`  // on the host, when the jail is gone
	Release   []string `json:"release,omitempty"`   // on the host, at the end

	Clean       bool          `json:"clean,omitempty"`        // an environment of their own, in the jail
	User        string        `json:"user,omitempty"`         // of those in the jail, as its passwd(5) has it
	ConsoleLog  string        `json:"console_log,omitempty"`  // on the host; "": var/log/console.log of the jail
	Timeout     time.Duration `json:"timeout,omitempty"`      // of each; 0: none
	StopTimeout time.Duration `json:"stop_timeout,omitempty"` // from SIGTERM to SIGKILL
}

// goodName reports whether a jail may have a name: it goes into paths, on command
// lines, and into messages.
func goodName(name string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
	return name != "" && len(name) <= 63 && strings.Trim(name, letters+"-") == "" && name[0] != '-'
}

// check refuses what no jail can be.
func (s *Spec) check() error {
	if !goodName(s.Name) {
		return fmt.Errorf("bad name %q of a jail: want up to 63 letters, digits, - and _", s.Name)
	}
	if n, err := strconv.Atoi(s.Name); err == nil && n != s.JID {
		return fmt.Errorf("bad name %q of a jail: a number is the jail's jid, which is another one", s.Name)
	}
	switch {
	case s.JID < 0:
		return fmt.Errorf("jail %s: bad jid %d: want 1 or more", s.Name, s.JID)
	case s.Path == "":
		return fmt.Errorf("jail %s: no path: want the jail's root directory", s.Name)
	case s.RawSockets && s.Network != VNET:
		return fmt.Errorf("jail %s: raw sockets would see and send as the whole host: it needs vnet", s.Name)
	case s.BPF && (s.Network == Host || s.Network == NoNetwork):
		return fmt.Errorf("jail %s: allow.bpf: it has no addresses whose packets it may see: want ip4.addr or ip6.addr", s.Name)
	case s.Link.NAT && (s.Network != VNET || len(s.Link.Gateways) == 0 || len(s.Addresses) == 0):
		return fmt.Errorf("jail %s: vnet.nat is for what a vnet jail sends to its vnet.gateway: want vnet, vnet.gateway and an address", s.Name)
	case s.Network == Shared && len(s.Addresses) == 0:
		return fmt.Errorf("jail %s: it shares the host's network and has no address there: want ip4.addr or ip6.addr", s.Name)
	}
	for i, a := range s.Addresses {
		addr := a.Prefix.Addr()
		switch {
		case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr.Is4In6() || addr.Zone() != "":
			return fmt.Errorf("jail %s: bad address %v: want one of a host", s.Name, addr)
		case s.Network == Shared && addr.Is6() && addr.IsLinkLocalUnicast():
			return fmt.Errorf("jail %s: address %v: a link-local address is another one on each interface, and no rule keeps a jail that shares the host's network to one of them: leave it out, or give the jail vnet", s.Name, addr)
		case has(s.Addresses[:i], addr):
			return fmt.Errorf("jail %s: address %v is there twice", s.Name, addr)
		}
	}
	return nil
}

// has reports whether an address is in a list.
func has(list []Address, addr netip.Addr) bool {
	for _, a := range list {
		if a.Prefix.Addr() == addr {
			return true
		}
	}
	return false
}

// Sentinels of what is wrong with a name.
var (
	ErrExists  = errors.New("it exists already")
	ErrUnknown = errors.New("there is no such jail")
)
