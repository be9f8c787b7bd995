package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	cilium "github.com/cilium/ebpf"
	bpflink "github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// guards are the two programs of guard.bpf.c in their places, with pins that
// keep them there.
type guards struct {
	guardObjects
	pins    string
	options bpflink.Link
}

// Names below the directory of pins. Those of the guards on sending are made
// by pin.
const (
	pinCaptives = "captives"
	pinOptions  = "options-%d" // number of the cgroup: sockets outlive the removal of theirs
)

// openGuards takes up the guards that are pinned, with programs as they are
// now, or makes new ones.
func openGuards(pins string, cgroup *os.File) (_ *guards, err error) {
	if err := os.Mkdir(pins, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	rlimit.RemoveMemlock() // only before Linux 5.11; if it fails, loading will tell
	spec, err := loadGuard()
	if err != nil {
		return nil, err
	}
	spec.Maps[pinCaptives].Pinning = cilium.PinByName
	g := &guards{pins: pins}
	if err := spec.LoadAndAssign(&g.guardObjects, &cilium.CollectionOptions{Maps: cilium.MapOptions{PinPath: pins}}); err != nil {
		return nil, fmt.Errorf("the guards of captive sockets: %w", explainBPF(err))
	}
	if g.options, err = g.guardOptions(cgroup); err != nil {
		g.Close()
		return nil, fmt.Errorf("the guard on options of captive sockets (Linux 5.7, cgroup v2): %w", err)
	}
	return g, nil
}

// openBPFFS opens the directory where the one with the pins is, or will be, and
// mounts a bpffs there if it is on none.
func openBPFFS(dir string) (*os.File, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("the place for pins, %s: %w", dir, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return nil, fmt.Errorf("mount a bpffs on %s: %w", dir, err)
		}
	}
	return os.Open(dir)
}

// guardOptions is the link that holds the guard to the cgroup.
func (g *guards) guardOptions(cgroup *os.File) (bpflink.Link, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(cgroup.Fd()), &st); err != nil {
		return nil, err
	}
	pin := filepath.Join(g.pins, fmt.Sprintf(pinOptions, st.Ino))
	if old, err := bpflink.LoadPinnedLink(pin, nil); err == nil {
		return old, old.Update(g.Options)
	}
	l, err := bpflink.AttachCgroup(bpflink.CgroupOptions{Path: cgroup.Name(), Attach: cilium.AttachCGroupSetsockopt, Program: g.Options})
	if err != nil {
		return nil, err
	}
	if err := l.Pin(pin); err != nil { // also fails where links cannot outlive us
		l.Close()
		return nil, err
	}
	return l, nil
}

// captiveMark is MARK of guard.bpf.c.
const captiveMark = 0x6a746170

// list puts a captive socket on the list of those that there are.
func (g *guards) list(c *captive, namespace uint64) (err error) {
	if c.cookie, err = unix.GetsockoptUint64(c.socket, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return fmt.Errorf("cookie of a socket (Linux 4.12): %w", err)
	}
	entry := guardCaptive{Netns: namespace, Program: uint32(c.program), Rules: c.rules}
	if err = g.Captives.Put(c.cookie, entry); err != nil {
		return fmt.Errorf("list captive socket %d: %w", c.cookie, err)
	}
	return nil
}

// label writes on the list whose a captive socket is, and pins what keeps its
// filter.
func (g *guards) label(c *captive, label string) error {
	var entry guardCaptive
	if len(label) >= len(entry.Label) {
		return fmt.Errorf("label %q of a captive socket: %d bytes, %d at most", label, len(label), len(entry.Label)-1)
	}
	if err := g.Captives.Lookup(c.cookie, &entry); err != nil {
		return fmt.Errorf("label captive socket %d: %w", c.cookie, err)
	}
	for i, b := range []byte(label) {
		entry.Label[i] = int8(b)
	}
	c.label = label
	return errors.Join(g.Captives.Put(c.cookie, entry), c.slot.Pin(g.pinOfSlot(c.cookie)))
}

func (g *guards) pinOfSlot(cookie uint64) string {
	return filepath.Join(g.pins, fmt.Sprintf("slot-%d", cookie))
}

// guardSending puts the guard on an interface of the calling thread's
// namespace, unless it is there.
func (g *guards) guardSending(namespace uint64, index int) error {
	pin := g.pin(namespace, index)
	old, err := bpflink.LoadPinnedLink(pin, nil)
	if err == nil {
		defer old.Close()
		if g.holds(namespace, index) {
			return old.Update(g.Sending)
		}
		old.Unpin() // of an interface that is no more
	}
	l, err := bpflink.AttachTCX(bpflink.TCXOptions{
		Interface: index, Program: g.Sending, Attach: cilium.AttachTCXEgress,
		Anchor: bpflink.Head(), // before programs that may let frames pass
	})
	if err != nil {
		return fmt.Errorf("the guard on sending, on interface %d (tcx, Linux 6.6): %w", index, err)
	}
	defer l.Close()
	return l.Pin(pin)
}

// table is the name of the guards' table in each namespace: other pins, other
// guards.
func (g *guards) table() string { return filepath.Base(g.pins) }

func (g *guards) pin(namespace uint64, index int) string {
	return filepath.Join(g.pins, fmt.Sprintf("send-%d-%d", namespace, index))
}

// holds reports whether a pinned guard on sending is on its interface.
func (g *guards) holds(namespace uint64, index int) bool {
	l, err := bpflink.LoadPinnedLink(g.pin(namespace, index), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex == uint32(index)
}

// unguard removes pins, and so the guards, that match a pattern.
func (g *guards) unguard(pattern string) error {
	names, err := filepath.Glob(filepath.Join(g.pins, pattern))
	for _, name := range names {
		if err2 := os.Remove(name); err2 != nil && !errors.Is(err2, os.ErrNotExist) {
			err = errors.Join(err, err2)
		}
	}
	return err
}

func (g *guards) close() {
	g.options.Close()
	g.Close()
}
