//go:build amd64 || arm64

package jail

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A mounted is a file system that is mounted nowhere yet, or its root when it is.
type mounted struct{ fd int }

func (m mounted) close() { unix.Close(m.fd) }

// newMount makes a file system. Its options are NAME=VALUE or NAME.
func newMount(fstype string, attrs int, options ...string) (mounted, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return mounted{}, fmt.Errorf("make a %s (Linux 5.2): %w", fstype, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		name, value, has := strings.Cut(o, "=")
		if has {
			err = unix.FsconfigSetString(fs, name, value)
		} else {
			err = unix.FsconfigSetFlag(fs, name)
		}
		if err != nil {
			return mounted{}, fmt.Errorf("make a %s: option %q: %w", fstype, o, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return mounted{}, fmt.Errorf("make a %s: %w", fstype, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return mounted{}, fmt.Errorf("make a %s: %w", fstype, err)
	}
	return mounted{fd}, nil
}

// copyMount makes a mount that shows what is at a path of a directory, with the
// attributes besides those that it has.
func copyMount(dir int, path string, attrs uint64, flags uint) (mounted, error) {
	flags |= unix.AT_EMPTY_PATH | unix.AT_SYMLINK_NOFOLLOW
	fd, err := unix.OpenTree(dir, path, flags|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return mounted{}, fmt.Errorf("open_tree (Linux 5.2) %s: %w", path, err)
	}
	attr := &unix.MountAttr{Attr_set: attrs}
	if err := unix.MountSetattr(fd, "", flags&^unix.AT_SYMLINK_NOFOLLOW, attr); err != nil {
		unix.Close(fd)
		return mounted{}, fmt.Errorf("mount_setattr (Linux 5.12) %s: %w", path, err)
	}
	return mounted{fd}, nil
}

// on puts the mount over what a descriptor names.
func (m mounted) on(target int) error {
	return unix.MoveMount(m.fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// over mounts over the directory at a path below, of which no part may be a
// symbolic link.
func (m mounted) over(root int, path string) error {
	target, err := directory(root, path)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := m.on(target); err != nil {
		return fmt.Errorf("mount on %s: %w", path, err)
	}
	return nil
}

// directory opens a directory below another one. A jail may have put symbolic
// links in its tree.
func directory(root int, path string) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	fd, err := unix.Openat2(root, strings.TrimLeft(path, "/"), how)
	switch err {
	case nil:
		return fd, nil
	case unix.ELOOP:
		return -1, fmt.Errorf("mount on %s: part of it is a symbolic link, which could lead anywhere", path)
	}
	return -1, fmt.Errorf("mount on %s: %w", path, err)
}

// enterRoot makes a directory the root of this thread, and of the processes in its
// mount namespace. Nothing of what was mounted before is left there, but for what
// is in the directory. It returns the root.
func enterRoot(path string) (mounted, error) {
	// What happens to mounts here does not happen on the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return mounted{}, fmt.Errorf("make mounts private: %w", err)
	}
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return mounted{}, rootError(path, err)
	}
	defer unix.Close(dir)
	root, err := copyMount(dir, "", unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, unix.AT_RECURSIVE)
	if err != nil {
		return mounted{}, fmt.Errorf("root %s: %w", path, err)
	}
	if err := swapRoot(root, dir); err != nil {
		root.close()
		return mounted{}, fmt.Errorf("make %s the root: %w", path, err)
	}
	return root, nil
}

func rootError(path string, err error) error {
	switch err {
	case unix.ENOENT:
		return fmt.Errorf("root %s: there is no such directory: make it, or mend path", path)
	case unix.ENOTDIR:
		return fmt.Errorf("root %s is not a directory", path)
	}
	return fmt.Errorf("root %s: %w", path, err)
}

// swapRoot is the sequence of pivot_root(2), NOTES: the old root is mounted over
// the new one, and then unmounted.
func swapRoot(root mounted, over int) error {
	if err := root.on(over); err != nil {
		return err
	}
	if err := unix.Fchdir(root.fd); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// A planned mount is one that was made before the host's files went out of sight.
type planned struct {
	mounted
	target string
}

// planMounts opens what a jail's own mounts show.
func planMounts(mounts []Mount) (list []planned, err error) {
	for _, m := range mounts {
		made, err := m.make()
		if err != nil {
			return list, fmt.Errorf("mount %s on %s: %w", m.Source, m.Target, err)
		}
		list = append(list, planned{made, m.Target})
	}
	return list, nil
}

// attributes are the options that are those of a mount (mount_setattr(2)).
var attributes = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "noexec": unix.MOUNT_ATTR_NOEXEC, "noatime": unix.MOUNT_ATTR_NOATIME,
}

func (m Mount) make() (mounted, error) {
	attrs := uint64(unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID)
	var rest []string
	for _, o := range m.Options {
		if a, ok := attributes[o]; ok {
			attrs |= a
		} else if o != "rw" && o != "nosuid" && o != "late" { // as ever; or FreeBSD's, about boot
			rest = append(rest, o)
		}
	}
	switch {
	case m.Type == "tmpfs":
		return newMount("tmpfs", int(attrs), rest...)
	case m.Type != "nullfs":
		return mounted{}, fmt.Errorf("a jail has no %s: want nullfs or tmpfs; mount others on the host, and that directory by nullfs", m.Type)
	case len(rest) > 0:
		return mounted{}, fmt.Errorf("unknown options %s: want ro, rw, noexec, noatime, nosuid", strings.Join(rest, ","))
	}
	// Where the path leads through another jail's tree, a link is that one's choice.
	dir, err := unix.Openat2(unix.AT_FDCWD, m.Source, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err == unix.ELOOP {
		return mounted{}, fmt.Errorf("part of %s is a symbolic link: name the directory itself", m.Source)
	}
	if err != nil {
		return mounted{}, err
	}
	defer unix.Close(dir)
	return copyMount(dir, "", attrs, unix.AT_RECURSIVE)
}
