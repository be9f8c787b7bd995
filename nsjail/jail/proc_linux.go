//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// User 0 of a jail is who the files of /proc belong to, and write to many of them
// needs no capability: /proc/sysrq-trigger, /proc/sys/kernel/core_pattern. So what
// is not about processes is taken away, but for these directories, and files that
// anybody may read; and nothing of it can be written to.
var (
	procDirs   = map[string]bool{"sys": true, "sysvipc": true, "tty": true}
	procHidden = map[string]bool{"keys": true, "key-users": true} // readable by all, but about the host
)

// mountProc mounts a jail's /proc. What is hidden is covered by the files of an empty
// file system, which lies under /proc itself.
func mountProc(root, proc mounted) error {
	empty, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "mode=755", "size=4k")
	if err != nil {
		return err
	}
	defer empty.close()
	if err := fillEmpty(empty.fd); err != nil {
		return fmt.Errorf("cover parts of /proc: %w", err)
	}
	if err := empty.over(root.fd, "proc"); err != nil {
		return err
	}
	if err := proc.over(root.fd, "proc"); err != nil {
		return err
	}
	list, err := topOf(proc.fd)
	if err != nil {
		return fmt.Errorf("list /proc: %w", err)
	}
	for _, e := range list {
		if err := coverProc(proc.fd, empty.fd, e); err != nil {
			return fmt.Errorf("cover /proc/%s: %w", e.Name(), err)
		}
	}
	return nil
}

func fillEmpty(dir int) error {
	fd, err := unix.Openat(dir, "file", unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return err
	}
	unix.Close(fd)
	return unix.Mkdirat(dir, "dir", 0o555)
}

// topOf lists a directory.
func topOf(dir int) ([]fs.DirEntry, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "/proc")
	defer f.Close()
	return f.ReadDir(-1)
}

// coverProc takes an entry of /proc away, or the right to write to it.
func coverProc(proc, empty int, e fs.DirEntry) error {
	if _, err := strconv.Atoi(e.Name()); err == nil || e.Type() == fs.ModeSymlink {
		return nil // a process, or what leads to one's own
	}
	if e.IsDir() {
		if procDirs[e.Name()] {
			return cover(proc, e.Name(), proc, e.Name())
		}
		return cover(proc, e.Name(), empty, "dir")
	}
	var st unix.Stat_t
	err := unix.Fstatat(proc, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) { // of a driver that has gone
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&0o004 != 0 && st.Mode&0o222 == 0 && !procHidden[e.Name()] {
		return nil
	}
	return cover(proc, e.Name(), empty, "file")
}

// cover mounts what is at a path, to read only, over another one.
func cover(dir int, name string, fromDir int, from string) error {
	m, err := copyMount(fromDir, from, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, 0)
	if err != nil {
		return err
	}
	defer m.close()
	target, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return m.on(target)
}
