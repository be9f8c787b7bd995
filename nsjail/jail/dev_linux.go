//go:build amd64 || arm64

package jail

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// devices are those that a jail has, by their numbers (Linux's devices.txt): they
// store nothing and belong to nobody.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

// deviceLinks are what programs want to find beside.
var deviceLinks = []struct{ name, to string }{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
}

// mountDev gives a jail its /dev, the only place of it where devices work.
func mountDev(root mounted) error {
	dev, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode=755", "size=1m", "nr_inodes=4096")
	if err != nil {
		return err
	}
	defer dev.close()
	if err := fillDev(dev.fd); err != nil {
		return fmt.Errorf("fill /dev: %w", err)
	}
	if err := dev.over(root.fd, "dev"); err != nil {
		return err
	}
	const attrs = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	pts, err := newMount("devpts", attrs, "newinstance", "ptmxmode=0666", "mode=620", "gid=5") // tty
	if err != nil {
		return err
	}
	defer pts.close()
	if err := pts.over(dev.fd, "pts"); err != nil {
		return err
	}
	shm, err := newMount("tmpfs", attrs|unix.MOUNT_ATTR_NODEV, "mode=1777", "size=64m")
	if err != nil {
		return err
	}
	defer shm.close()
	return shm.over(dev.fd, "shm")
}

func fillDev(dir int) error {
	for _, d := range devices {
		if err := unix.Mknodat(dir, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	for _, l := range deviceLinks {
		if err := unix.Symlinkat(l.to, dir, l.name); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	for _, name := range []string{"pts", "shm"} {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
