package main

import (
	"errors"
	"fmt"
	"net/netip"

	"jailtap/nsjail"
	"jailtap/nsjail/jail"
)

// openJail opens what -j names: a jail of jailtap's, or else a network namespace. A
// jail with a network of its own is that.
func openJail(name string) (addressed, error) {
	j, err := jail.System.Find(name)
	if err != nil {
		return opened(otherwiseNamed(name, err))
	}
	switch j.Spec().Network {
	case jail.Shared:
		return sharedJail{j}, nil
	case jail.Host:
		return nil, fmt.Errorf("jail %s has all of the host's network, and no addresses of its own: name some with -a", name)
	}
	return opened(openNetwork(j))
}

// openNetwork opens the network namespace that a jail is in.
func openNetwork(j *jail.Jail) (*nsjail.Jail, error) {
	ns, err := nsjail.OpenPID(j.PID())
	if err != nil {
		return nil, err
	}
	// Only if it lives still was the number its own.
	name := j.Spec().Name
	if again, err := jail.System.Find(name); err != nil || again.PID() != j.PID() {
		ns.Close()
		return nil, fmt.Errorf("jail %s has just ended", name)
	}
	return ns, nil
}

// otherwiseNamed opens the network namespace of a name that is no jail's of jailtap's
// because of err.
func otherwiseNamed(name string, err error) (*nsjail.Jail, error) {
	ns, nsErr := nsjail.OpenNamespace(name)
	if nsErr != nil && errors.Is(err, jail.ErrUnknown) {
		return nil, fmt.Errorf("no jail of jailtap's is called %q (jailtap jls lists them), and %w", name, nsErr)
	}
	return ns, nsErr
}

// opened is no namespace if there is an error.
func opened(j *nsjail.Jail, err error) (addressed, error) {
	if err != nil {
		return nil, err
	}
	return j, nil
}

// A sharedJail has those of the host's addresses that are in its record.
type sharedJail struct{ *jail.Jail }

func (j sharedJail) String() string { return "jail " + j.Spec().Name }

func (j sharedJail) Addresses() ([]netip.Prefix, error) { return j.Jail.Addresses(), nil }

func (sharedJail) Close() error { return nil }

// interfaceOf is where packets of the jail that -j names pass.
func interfaceOf(name string) (string, error) {
	j, err := jail.System.Find(name)
	if errors.Is(err, jail.ErrUnknown) || errors.Is(err, errors.ErrUnsupported) {
		return "", usagef("say where to capture with -i INTERFACE (or -i any, or -r FILE): %s is no jail of jailtap's, of which that would be known", name)
	}
	if err != nil {
		return "", err
	}
	return j.HostInterface()
}
