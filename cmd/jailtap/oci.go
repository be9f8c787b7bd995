package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"jailtap/bpf"
	"jailtap/loader/agent/oci"
)

func (a *app) ociCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "oci",
		Short: "Containers whose tcpdump sees the packets in scope only",
		RunE: func(*cobra.Command, []string) error {
			return usagef("name a command: profile")
		},
	}
	cmd.AddCommand(a.ociProfileCommand())
	return cmd
}

// ociProfileFlags are those of the command oci profile.
type ociProfileFlags struct {
	listener  string
	base      string
	addresses []string
	policy    string
	vlan      string
}

func (a *app) ociProfileCommand() *cobra.Command {
	f := &ociProfileFlags{}
	cmd := &cobra.Command{
		Use:   "profile [flags]",
		Short: "Print the seccomp profile of such containers",
		Long: `profile prints a seccomp profile: linux.seccomp of a container's config.json, or a
file for podman and docker (--security-opt seccomp=FILE). Under it packet sockets
are asked of jailtap serve, and 32-bit programs do not run.

By itself it refuses nothing. To keep what an engine's own profile refuses, give
that with --merge: rules in it about the same calls make room for jailtap's.

A container on the host's network may see the addresses that -a names; without,
those of its annotation jailtap.address, of which some engines take image's word.
One with a network namespace of its own may see the addresses of that. Containers
must not have CAP_NET_RAW: with it they need no jailtap for a packet socket.`,
		Example: `  jailtap oci profile
  jailtap oci profile -a 10.0.0.5 > five.json
  jailtap oci profile --merge /usr/share/containers/seccomp.json > podman.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(a, cmd.Flags()) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.listener, "listener", oci.DefaultListener, "the socket at `PATH`, where jailtap serve --oci-socket is")
	fs.StringVar(&f.base, "merge", "", "refuse what the profile in `FILE` refuses; - is standard input")
	fs.StringArrayVarP(&f.addresses, "address", "a", nil,
		"plain addresses `ADDR[/LEN]`, repeatable, also separated by commas; @FILE has one a line")
	fs.StringVar(&f.policy, "policy", bpf.Full.String(), "`POLICY`: classic or full")
	fs.StringVar(&f.vlan, "vlan", "none", "tagged frames in scope, `none|any|ID,...`")
	complete(cmd, "policy", "full", "classic")
	complete(cmd, "vlan", "none", "any")
	return cmd
}

func (f *ociProfileFlags) run(a *app, fs *pflag.FlagSet) error {
	metadata, err := f.metadata(fs)
	if err != nil {
		return err
	}
	profile := oci.AllowAll()
	if f.base != "" {
		if profile, err = a.readProfile(f.base); err != nil {
			return err
		}
	}
	if err := profile.Merge(f.listener, metadata); err != nil {
		return err
	}
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "\t")
	return e.Encode(profile)
}

func (a *app) readProfile(name string) (*oci.Profile, error) {
	text, err := a.readFilterFile(name)
	if err != nil {
		return nil, err
	}
	profile, err := oci.ReadProfile([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return profile, nil
}

// metadata is what the flags say of the scope, as ociSettings reads it.
func (f *ociProfileFlags) metadata(fs *pflag.FlagSet) (string, error) {
	addresses, err := parseAddresses(f.addresses)
	if err != nil {
		return "", err
	}
	said := map[string]string{}
	if fs.Changed("address") {
		var all []string
		for _, p := range addresses {
			all = append(all, p.String())
		}
		said[ociAddress] = strings.Join(all, ",")
	}
	if fs.Changed("policy") {
		said[ociPolicy] = f.policy
	}
	if fs.Changed("vlan") {
		said[ociVLAN] = f.vlan
	}
	if _, err := ociScope(said); err != nil {
		return "", usageError{err}
	}
	if len(said) == 0 {
		return "", nil
	}
	text, err := json.Marshal(said)
	return string(text), err
}
