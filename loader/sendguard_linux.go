package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A sendGuard keeps the guard on sending on every interface of a namespace.
type sendGuard struct {
	guards *guards
	ns     namespaceFile // its own, as the caller's may be closed
	inode  uint64
	egress *egress
	gap    error // why there is no egress
	events *nl.NetlinkSocket
	done   chan struct{} // closed when the watch ends; nil if there is none

	mu      sync.Mutex
	err     error // some interface is not guarded, as far as known
	removed bool  // no interface is to be guarded any more
}

// guardNamespace guards all interfaces there are, and then those that come.
func (g *guards) guardNamespace(ns Namespace, inode uint64) (*sendGuard, error) {
	s := &sendGuard{guards: g, inode: inode}
	// Subscribing comes before listing, or one that comes in between would be
	// missed.
	err := within(ns, func() (err error) {
		if s.ns.File, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if s.events, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK); err != nil {
			return fmt.Errorf("watch for new interfaces: %w", err)
		}
		s.egress, err = guardEgress(g.table())
		if errors.Is(err, errors.ErrUnsupported) {
			s.gap, err = err, nil
		}
		return err
	})
	if err != nil {
		s.stop()
		return nil, err
	}
	if err := exclusively(s.guardAll); err != nil {
		s.stop()
		return nil, err
	}
	s.done = make(chan struct{})
	go s.watch()
	return s, nil
}

// watch looks at all interfaces at every event, whatever it says. An overflow,
// which loses events, is one more.
func (s *sendGuard) watch() {
	defer close(s.done)
	for {
		_, _, err := s.events.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			s.fail(fmt.Errorf("watch for new interfaces: %w", err))
			return
		}
		s.fail(exclusively(s.guardAll))
	}
}

// guardAll guards the interfaces that are not, and unpins what held to those
// that are no more. No Warden does it while another does.
func (s *sendGuard) guardAll() error {
	if s.isRemoved() {
		return nil
	}
	return s.ns.Do(func() error {
		links, err := netlink.LinkList()
		for errors.Is(err, netlink.ErrDumpInterrupted) { // one came or went meanwhile
			links, err = netlink.LinkList()
		}
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		gone, err := s.guards.pinnedIndexes(s.inode)
		for _, l := range links {
			index := l.Attrs().Index
			if err2 := s.guards.guardInterface(s.inode, index); !isGone(err2) {
				err = errors.Join(err, err2)
			}
			delete(gone, index)
		}
		for index := range gone {
			err = errors.Join(err, s.guards.unguard(fmt.Sprintf("*-%d-%d", s.inode, index)))
		}
		return err
	})
}

// isGone reports whether the interface went while it was being guarded: no such
// device, or a link that lost it. If it comes again, so does an event.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOLINK)
}

// fail makes sure that there are no new captive sockets here while err is one.
func (s *sendGuard) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sendGuard) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *sendGuard) isRemoved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed
}

// remove takes the guard away that is not pinned. The watch makes none any more
// then, but may still be there: what it waits for is the caller's.
func (s *sendGuard) remove() (err error) {
	s.mu.Lock()
	s.removed = true
	s.mu.Unlock()
	if s.egress != nil {
		err = s.egress.remove()
	}
	return err
}

// stop ends the watch. The guards stay where they are.
func (s *sendGuard) stop() {
	if s.egress != nil {
		s.egress.close()
	}
	if s.events != nil {
		s.events.Close()
	}
	if s.done != nil {
		<-s.done
	}
	s.ns.Close()
}

// pinnedIndexes are the interfaces of a namespace that pins are about.
func (g *guards) pinnedIndexes(namespace uint64) (map[int]bool, error) {
	indexes := map[int]bool{}
	err := g.eachPin(func(inode uint64, index int) {
		if inode == namespace {
			indexes[index] = true
		}
	})
	return indexes, err
}

// pinnedNamespaces are the namespaces that pins are about.
func (g *guards) pinnedNamespaces() (map[uint64]bool, error) {
	inodes := map[uint64]bool{}
	err := g.eachPin(func(inode uint64, _ int) { inodes[inode] = true })
	return inodes, err
}

func (g *guards) eachPin(f func(inode uint64, index int)) error {
	entries, err := os.ReadDir(g.pins)
	for _, e := range entries {
		var inode uint64
		var index int
		if _, numbers, _ := strings.Cut(e.Name(), "-"); numbers != "" {
			if n, _ := fmt.Sscanf(numbers, "%d-%d", &inode, &index); n == 2 {
				f(inode, index)
			}
		}
	}
	return err
}
