package nsjail

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rest is how long further changes are put together after one was reported.
const rest = 20 * time.Millisecond

// watch lists the addresses anew at every event and does not look at what the
// event says. So an overflow of the socket, which loses events, is one more
// event.
func (j *Jail) watch(ctx context.Context, report func([]netip.Prefix)) error {
	// Subscribing comes before listing, or a change in between would be missed.
	sub, err := j.subscribe()
	if err != nil {
		return err
	}
	defer sub.Close()
	h, err := j.handle()
	if err != nil {
		return err
	}
	defer h.Close()

	changed := make(chan struct{}, 1)
	failed := make(chan error, 1)
	go func() { failed <- listen(sub, changed) }()

	var last []netip.Prefix
	for first := true; ctx.Err() == nil; first = false {
		now, err := j.list(h)
		if err != nil {
			return err
		}
		if first || !slices.Equal(now, last) {
			report(now)
			last = now
		}
		pause(ctx, rest)
		select {
		case <-ctx.Done():
		case <-changed:
		case err := <-failed:
			return fmt.Errorf("watch the addresses of %s: %w", j, err)
		}
	}
	return nil
}

func (j *Jail) subscribe() (sub *nl.NetlinkSocket, err error) {
	err = j.Do(func() error {
		sub, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("watch the addresses of %s: %w", j, err)
	}
	return sub, nil
}

// listen turns whatever comes from the kernel, or no longer fitted in the
// socket's buffer (ENOBUFS, netlink(7)), into at most one waiting event.
func listen(sub *nl.NetlinkSocket, changed chan<- struct{}) error {
	for {
		if _, _, err := sub.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
