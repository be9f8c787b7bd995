package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"jailtap/bpf"
)

// What says whose packets a container may see: its annotations, or in their place
// what its profile has as listenerMetadata.
const (
	ociAddress = "jailtap.address" // as for -a, without @FILE
	ociPolicy  = "jailtap.policy"
	ociVLAN    = "jailtap.vlan"
)

// ociSettings are those of a container. If its profile says anything then the
// annotations are not asked: a profile is its administrator's, while annotations
// may have come with the image (podman takes them over from there).
func ociSettings(metadata string, annotations map[string]string) (map[string]string, error) {
	if metadata == "" {
		return annotations, nil
	}
	settings := map[string]string{}
	if err := json.Unmarshal([]byte(metadata), &settings); err != nil {
		return nil, fmt.Errorf("the profile's listenerMetadata is not from jailtap oci profile: %w", err)
	}
	for name := range settings {
		if name != ociAddress && name != ociPolicy && name != ociVLAN {
			return nil, fmt.Errorf("the profile's listenerMetadata has %q, which is unknown", name)
		}
	}
	return settings, nil
}

// ociScope is a scope with the addresses that settings name, if any.
func ociScope(settings map[string]string) (*scopeSource, error) {
	s := &scopeSource{policy: bpf.Full}
	var err error
	if text, ok := settings[ociPolicy]; ok {
		if s.policy, err = bpf.ParsePolicy(text); err != nil {
			return nil, fmt.Errorf("%s: %w", ociPolicy, err)
		}
	}
	if s.vlans, err = bpf.ParseVLANs(settings[ociVLAN]); err != nil {
		return nil, fmt.Errorf("%s: %w", ociVLAN, err)
	}
	text, ok := settings[ociAddress]
	if !ok {
		return s, nil
	}
	for field := range strings.SplitSeq(text, ",") {
		p, err := bpf.ParseAddr(strings.TrimSpace(field))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ociAddress, err)
		}
		s.fixed = append(s.fixed, p)
	}
	return s, nil
}
