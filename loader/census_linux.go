package loader

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// forget takes sockets that are no more out of the list of captives. left is
// how many there are in each namespace.
func (w *warden) forget() (left map[uint64]int, err error) {
	listed := map[uint64][]uint64{}
	var cookie, namespace uint64
	entries := w.guards.Captives.Iterate()
	for entries.Next(&cookie, &namespace) {
		listed[namespace] = append(listed[namespace], cookie)
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("list captive sockets: %w", err)
	}
	left = map[uint64]int{}
	for namespace, cookies := range listed {
		alive, err := w.packetSockets(namespace)
		for _, cookie := range cookies {
			if err == nil && !alive[cookie] {
				w.guards.Captives.Delete(cookie) // if it fails it is tried again
				continue
			}
			left[namespace]++
		}
	}
	return left, nil
}

// packetSockets are the cookies of all packet sockets of a namespace. It is an
// error if that cannot be known.
func (w *warden) packetSockets(namespace uint64) (map[uint64]bool, error) {
	ns, err := w.openNamespace(namespace)
	switch {
	case err == nil:
		defer ns.Close()
		return packetSockets(ns)
	case w.guards.exists(namespace):
		return nil, err // a socket may be all that keeps it
	}
	return nil, nil
}

func (w *warden) openNamespace(inode uint64) (namespaceFile, error) {
	path := ""
	if g := w.namespaces[inode]; g != nil {
		path = fmt.Sprintf("/proc/self/fd/%d", g.ns.Fd())
	} else {
		path = namespacePath(inode)
	}
	file, err := os.Open(path)
	return namespaceFile{file}, err
}

// exists reports whether a namespace has interfaces, as every one does. The
// guards on those of one that is no more hold to nothing.
func (g *guards) exists(namespace uint64) bool {
	exists := false
	g.eachPin(func(inode uint64, index int) {
		exists = exists || inode == namespace && g.holds(inode, index)
	})
	return exists
}

// packetSockets asks sock_diag(7): struct packet_diag_req and packet_diag_msg
// of linux/packet_diag.h.
func packetSockets(ns Namespace) (map[uint64]bool, error) {
	alive := map[uint64]bool{}
	err := ns.Do(func() error {
		const sockDiagByFamily, requestLen, cookieOff = 20, 20, 8
		req := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
		req.AddRawData(append([]byte{unix.AF_PACKET}, make([]byte, requestLen-1)...))
		answers, err := req.Execute(unix.NETLINK_SOCK_DIAG, 0)
		for _, a := range answers {
			if len(a) >= cookieOff+8 {
				low, high := binary.NativeEndian.Uint32(a[cookieOff:]), binary.NativeEndian.Uint32(a[cookieOff+4:])
				alive[uint64(high)<<32|uint64(low)] = true
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list packet sockets (CONFIG_PACKET_DIAG): %w", err)
	}
	return alive, nil
}

// namespacePath finds a way into a namespace: a name, or a process in it; "" if
// there is none.
func namespacePath(inode uint64) string {
	for _, pattern := range []string{"/proc/thread-self/ns/net", "/run/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			var st unix.Stat_t
			if unix.Stat(path, &st) == nil && st.Ino == inode {
				return path
			}
		}
	}
	return ""
}

// A namespaceFile is a namespace that is kept open.
type namespaceFile struct{ *os.File }

// Do does something inside, on a thread that ends with it.
func (ns namespaceFile) Do(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread is in another place now
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
