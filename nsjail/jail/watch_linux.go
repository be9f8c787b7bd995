//go:build amd64 || arm64

package jail

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// watch looks at the jail's record whenever that is replaced or removed.
func (j *Jail) watch(ctx context.Context, report func([]netip.Prefix)) error {
	events, err := fsnotify.NewWatcher()
	if err == nil {
		defer events.Close()
		err = events.Add(j.registry.Dir) // before it is read, or a change in between would be missed
	}
	if err != nil {
		return fmt.Errorf("watch the record of jail %s: %w", j.rec.Spec.Name, err)
	}
	var last []netip.Prefix
	for first := true; ; first = false {
		now, err := j.again()
		if err != nil {
			return err
		}
		if addrs := now.Addresses(); first || !slices.Equal(addrs, last) {
			report(addrs)
			last = addrs
		}
		if err := j.awaitEvent(ctx, events); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// awaitEvent waits until something was done to the jail's record.
func (j *Jail) awaitEvent(ctx context.Context, events *fsnotify.Watcher) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events.Events:
			if e.Name == j.registry.file(j.rec.Spec.Name) {
				return nil
			}
		case err := <-events.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch the record of jail %s: %w", j.rec.Spec.Name, err)
			}
			return nil // the record may have changed
		}
	}
}

// again finds the same jail, as it is now.
func (j *Jail) again() (*Jail, error) {
	rec, err := j.registry.load(j.rec.Spec.Name)
	if err != nil || rec.First != j.rec.First || !rec.First.alive() {
		return nil, fmt.Errorf("jail %s has ended", j.rec.Spec.Name)
	}
	return &Jail{j.registry, rec}, nil
}

// hostInterface is where on the host a jail's packets pass.
func (j *Jail) hostInterface() (string, error) {
	switch spec := &j.rec.Spec; {
	case j.rec.Veth != "":
		return j.rec.Veth, nil
	case spec.Network == Shared:
		for _, a := range spec.Addresses {
			if name, err := holderOf(a.Prefix.Addr()); name != "" || err != nil {
				return name, err
			}
		}
	}
	return "", fmt.Errorf("jail %s has no interface of the host for itself: say which with -i", j.rec.Spec.Name)
}
