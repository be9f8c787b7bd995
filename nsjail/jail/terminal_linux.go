//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTerminal does not lock the terminal's other side (pts(4)): nobody in the jail
// is to be kept from it.
func (j *Jail) openTerminal() (*os.File, error) {
	pts, err := j.openPTS()
	if err != nil {
		return nil, fmt.Errorf("jail %s: make a terminal: %w", j.rec.Spec.Name, err)
	}
	defer unix.Close(pts)
	// O_NONBLOCK: so that who waits for a read of the file can be woken.
	fd, err := unix.Openat(pts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("jail %s: open /dev/pts/ptmx in it: %w", j.rec.Spec.Name, err)
	}
	f := os.NewFile(uintptr(fd), "/dev/pts/ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("jail %s: unlock a terminal: %w", j.rec.Spec.Name, err)
	}
	return f, nil
}

// openPTS opens the jail's /dev/pts. The jail may have put what it likes into its
// /dev, but a devpts has nothing in it that did not come from the kernel.
func (j *Jail) openPTS() (dir int, err error) {
	root, err := j.openRoot()
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	dir, err = unix.Openat2(root, "dev/pts", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err == nil {
		var fs unix.Statfs_t
		if err = unix.Fstatfs(dir, &fs); err == nil && fs.Type == unix.DEVPTS_SUPER_MAGIC {
			return dir, nil
		}
		unix.Close(dir)
	}
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return -1, errors.New("it has no /dev/pts: make it with a directory dev in its root, or with mount.devfs")
	}
	return -1, fmt.Errorf("open /dev/pts in it: %w", err)
}

// openRoot opens the root of the jail's first process.
func (j *Jail) openRoot() (fd int, err error) {
	first, err := j.rec.First.open()
	if err != nil {
		return -1, ErrUnknown
	}
	defer first.Close()
	fd, err = unix.Open(fmt.Sprintf("/proc/%d/root", j.rec.First.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open its root: %w", err)
	}
	if ended(int(first.Fd())) { // then it may be another one's
		unix.Close(fd)
		return -1, ErrUnknown
	}
	return fd, nil
}

// openSlave opens the side of a terminal that a command has, as its user's own.
func openSlave(master *os.File, u User) (slave *os.File, err error) {
	conn, err := master.SyscallConn() // Fd may make reads of it blocking ones
	if err != nil {
		return nil, err
	}
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	err2 := conn.Control(func(fd uintptr) {
		// By the master, and no path, it is that terminal and no other (ioctl_tty(2)).
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, flags)
		if errno != 0 {
			err = fmt.Errorf("open the terminal (TIOCGPTPEER): %w", errno)
			return
		}
		slave = os.NewFile(n, "terminal")
	})
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if err := slave.Chown(int(u.UID), -1); err != nil { // as login(1) does
		slave.Close()
		return nil, fmt.Errorf("give the terminal to user %d: %w", u.UID, err)
	}
	return slave, nil
}
