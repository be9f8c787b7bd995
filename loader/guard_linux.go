package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	cilium "github.com/cilium/ebpf"
	bpflink "github.com/cilium/ebpf/link"
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
	pinPlaces   = "places"
	pinOptions  = "options-%d" // number of the cgroup: sockets outlive the removal of theirs
)

// openGuards takes up the guards that are pinned, with programs as they are
// now, or makes new ones.
func openGuards(pins string, cgroup *os.File) (_ *guards, err error) {
	if err := makePins(pins); err != nil {
		return nil, err
	}
	spec, err := loadGuard()
	if err != nil {
		return nil, err
	}
	spec.Maps[pinCaptives].Pinning = cilium.PinByName
	spec.Maps[pinPlaces].Pinning = cilium.PinByName
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

// makePins makes the directory, on a bpffs that it mounts if there is none.
func makePins(pins string) error {
	parent := filepath.Dir(pins)
	var fs unix.Statfs_t
	if err := unix.Statfs(parent, &fs); err != nil {
		return fmt.Errorf("the place for pins, %s: %w", parent, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", parent, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fmt.Errorf("mount a bpffs on %s: %w", parent, err)
		}
	}
	err := os.Mkdir(pins, 0o700)
	if errors.Is(err, os.ErrExist) {
		return isOurs(pins)
	}
	return err
}

// isOurs refuses a directory of pins that somebody else could take them out of: a
// bpffs often lets everybody make directories.
func isOurs(pins string) error {
	var st unix.Stat_t
	if err := unix.Lstat(pins, &st); err != nil {
		return err
	}
	if st.Mode != unix.S_IFDIR|0o700 || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the directory for pins, %s, is not ours alone (user %d, mode %o): remove it", pins, st.Uid, st.Mode)
	}
	return nil
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

// place is where a socket is in the kernel, of which the guard on options took note
// when it was given its mark.
func (g *guards) place(socket int) (address uint64, err error) {
	if err := g.Places.Lookup(uint32(socket), &address); err != nil {
		return 0, fmt.Errorf("the place of a captive socket, which the guard on options should know: %w", err)
	}
	return address, nil
}

// captiveMark is MARK of guard.bpf.c.
const captiveMark = 0x6a746170

// list puts a captive socket on the list of those that there are.
func (g *guards) list(c *captive, namespace uint64) (err error) {
	if c.cookie, err = unix.GetsockoptUint64(c.socket, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return fmt.Errorf("cookie of a socket (Linux 4.12): %w", err)
	}
	c.entry = guardCaptive{Netns: namespace, Program: uint32(c.program), Rules: c.rules}
	if err = g.Captives.Put(c.cookie, &c.entry); err != nil {
		return fmt.Errorf("list captive socket %d: %w", c.cookie, err)
	}
	return nil
}

// label writes on the list whose a captive socket is, and pins what keeps its
// filter. The pin goes when the socket is found to be no more.
func (g *guards) label(c *captive, label string) error {
	if len(label) >= len(c.entry.Label) {
		return fmt.Errorf("label %q of a captive socket: %d bytes, %d at most", label, len(label), len(c.entry.Label)-1)
	}
	for i, b := range []byte(label) {
		c.entry.Label[i] = int8(b)
	}
	c.label = label
	if err := g.Captives.Update(c.cookie, &c.entry, cilium.UpdateExist); err != nil {
		return fmt.Errorf("label captive socket %d: %w", c.cookie, err)
	}
	return c.slot.Pin(g.pinOfSlot(c.cookie))
}

func (g *guards) pinOfSlot(cookie uint64) string {
	return filepath.Join(g.pins, fmt.Sprintf("slot-%d", cookie))
}

func (g *guards) pin(namespace uint64, index int) string {
	return filepath.Join(g.pins, fmt.Sprintf("send-%d-%d", namespace, index))
}

// guardInterface puts the guard on sending on an interface of the calling thread's
// namespace, unless it is there.
func (g *guards) guardInterface(namespace uint64, index int) error {
	pin := g.pin(namespace, index)
	old, err := bpflink.LoadPinnedLink(pin, nil)
	if err == nil {
		defer old.Close()
		if isOn(old, index) {
			return old.Update(g.Sending)
		}
		old.Unpin() // of an interface that is no more
	}
	l, err := bpflink.AttachTCX(bpflink.TCXOptions{
		Interface: index, Program: g.Sending, Attach: cilium.AttachTCXEgress,
		Anchor: bpflink.Head(), // before programs that may let frames pass
	})
	if err != nil {
		return fmt.Errorf("the guard on sending on interface %d (tcx, Linux 6.6): %w", index, err)
	}
	defer l.Close()
	return l.Pin(pin)
}

// isOn reports whether a link is to an interface.
func isOn(l bpflink.Link, index int) bool {
	info, err := l.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex == uint32(index)
}

// holds reports whether the pinned guard is on an interface.
func (g *guards) holds(namespace uint64, index int) bool {
	l, err := bpflink.LoadPinnedLink(g.pin(namespace, index), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	return isOn(l, index)
}

// table is the name of the guards' table in each namespace: other pins, other
// guards.
func (g *guards) table() string { return filepath.Base(g.pins) }

// unguard takes away what is pinned under names that match a pattern.
func (g *guards) unguard(pattern string) error {
	names, err := filepath.Glob(filepath.Join(g.pins, pattern))
	for _, name := range names {
		// Without its pin a link is released later, and would be in the way of
		// the next one till then.
		if l, err := bpflink.LoadPinnedLink(name, nil); err == nil {
			l.Detach() // fails if its interface is no more
			l.Close()
		}
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
