package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dir is where ip-netns(8) keeps named network namespaces.
const dir = "/run/netns"

// A Namespace is a named network namespace.
type Namespace struct {
	Name string
	Path string // of the file that holds it, for setns(2)
}

// Name is the name of a namespace of this process: PREFIX-PID-SUFFIX. The PID
// is what RemoveStale goes by.
func Name(prefix, suffix string) string {
	return fmt.Sprintf("%s-%d-%s", prefix, os.Getpid(), suffix)
}

// New makes a namespace with lo up and IPv6 off on the interfaces to come.
func New(name string) (*Namespace, error) {
	n := &Namespace{Name: name, Path: filepath.Join(dir, name)}
	err := onOwnThread(func() error {
		h, err := netns.NewNamed(name)
		if err != nil {
			return err
		}
		defer h.Close()
		return n.quieten()
	})
	if err != nil {
		n.Remove()
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	return n, nil
}

// quieten runs in the namespace.
func (n *Namespace) quieten() error {
	for key, value := range map[string]string{
		"disable_ipv6":         "1",
		"accept_dad":           "0",
		"router_solicitations": "0",
		"addr_gen_mode":        "1", // no link-local address by itself
		// A multicast listener report is repeated within so many milliseconds,
		// at random; a day is as good as not.
		"mldv2_unsolicited_report_interval": "86400000",
	} {
		if err := sysctl("net/ipv6/conf/default/"+key, value); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// Do runs f in the namespace, on a thread of its own. A panic or a Goexit
// (t.FailNow) of f goes on in the caller.
func (n *Namespace) Do(f func() error) error {
	return onOwnThread(func() error {
		h, err := netns.GetFromPath(n.Path)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", n.Name, err)
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// onOwnThread runs f on a locked thread that ends with it, since nothing else
// may run on a thread that has changed its namespace. It never is the main thread,
// which would stay, and what /proc/self shows is about that one.
func onOwnThread(f func() error) (err error) {
	var panicked any
	returned := false
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // not unlocked, so that the thread ends with the goroutine
		defer close(done)
		defer func() { panicked = recover() }()
		if unix.Gettid() == os.Getpid() {
			// As long as this goroutine has the main thread, another one has another.
			defer runtime.UnlockOSThread()
			err = onOwnThread(f)
		} else {
			err = f()
		}
		returned = true
	}()
	<-done
	switch {
	case panicked != nil:
		panic(panicked)
	case !returned:
		runtime.Goexit()
	}
	return err
}

// Remove takes the name away; the namespace ends with its last user.
func (n *Namespace) Remove() error {
	err := unix.Unmount(n.Path, unix.MNT_DETACH)
	if rm := os.Remove(n.Path); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		return errors.Join(err, rm)
	}
	return nil
}

// RemoveStale removes the namespaces PREFIX-PID-* of processes that are gone.
func RemoveStale(prefix string) {
	paths, _ := filepath.Glob(filepath.Join(dir, prefix+"-*"))
	for _, path := range paths {
		name := filepath.Base(path)
		text, _, _ := strings.Cut(strings.TrimPrefix(name, prefix+"-"), "-")
		pid, err := strconv.Atoi(text)
		if err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			(&Namespace{Name: name, Path: path}).Remove()
		}
	}
}

// sysctl sets a value in the namespace of the calling thread.
func sysctl(key, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
}
