package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Profile is a seccomp profile: linux.seccomp of the OCI runtime specification,
// and what the files of engines have beyond it (moby's profiles/seccomp, which
// podman's are like).
type Profile struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet,omitempty"`
	DefaultErrno     string                   `json:"defaultErrno,omitempty"` // podman's
	Architectures    []specs.Arch             `json:"architectures,omitempty"`
	ArchMap          json.RawMessage          `json:"archMap,omitempty"` // engines'
	Flags            []specs.LinuxSeccompFlag `json:"flags,omitempty"`
	ListenerPath     string                   `json:"listenerPath,omitempty"`
	ListenerMetadata string                   `json:"listenerMetadata,omitempty"`
	Syscalls         []Syscall                `json:"syscalls"`
}

// A Syscall is a rule: what becomes of calls of some names for which all of Args
// hold.
type Syscall struct {
	Name     string                   `json:"name,omitempty"` // engines', instead of Names
	Names    []string                 `json:"names,omitempty"`
	Action   specs.LinuxSeccompAction `json:"action"`
	ErrnoRet *uint                    `json:"errnoRet,omitempty"`
	Errno    string                   `json:"errno,omitempty"` // podman's
	Args     []specs.LinuxSeccompArg  `json:"args,omitempty"`
	Comment  string                   `json:"comment,omitempty"`  // engines'
	Includes json.RawMessage          `json:"includes,omitempty"` // engines': where the rule counts,
	Excludes json.RawMessage          `json:"excludes,omitempty"` // and where not
}

// AllowAll is a profile that refuses nothing.
func AllowAll() *Profile { return &Profile{DefaultAction: specs.ActAllow} }

// ReadProfile reads a profile as JSON. A field that it does not know is an error,
// since it might be one that matters.
func ReadProfile(text []byte) (*Profile, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	p := &Profile{}
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("not a seccomp profile: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("not a seccomp profile: there is more behind it")
	}
	if p.DefaultAction == "" {
		return nil, fmt.Errorf("not a seccomp profile: it has no defaultAction")
	}
	return p, nil
}

// Merge changes the profile so that the calls that the agent has to hear of are
// held back, whatever it did with them before, and that there are calls of the
// machine's own architecture only: Linux runs no cgroup/setsockopt program for
// those of others (do_sock_setsockopt in net/socket.c), and with that the guard on
// the options of captive sockets. libseccomp kills the thread that makes one.
//
// Rules about the same calls would come in each other's way (libseccomp drops
// conditions for a rule without any), so they are made to be about all others.
// Where that cannot be expressed, or the profile has a listener already, there is
// an error that says so; a process can have one listener only.
func (p *Profile) Merge(listenerPath, metadata string) error {
	if err := merge(p); err != nil {
		return err
	}
	p.ListenerPath, p.ListenerMetadata = listenerPath, metadata
	return nil
}
