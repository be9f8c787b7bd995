//go:build unix

package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A fileID is the same for hard links, in one file system.
type fileID struct{ dev, ino uint64 }

// owner is what a FileInfo does not say for itself.
type owner struct {
	uid, gid     int
	links        uint64
	id           fileID
	major, minor uint32 // of a device
}

func ownerOf(info fs.FileInfo) owner {
	if info, ok := info.(*fileInfo); ok {
		return info.owner
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{}
	}
	rdev := uint64(st.Rdev)
	return owner{int(st.Uid), int(st.Gid), uint64(st.Nlink), fileID{uint64(st.Dev), uint64(st.Ino)}, unix.Major(rdev), unix.Minor(rdev)}
}

// errLocked is that another process has the lock.
var errLocked = errors.New("locked")

// lock takes the lock of a file, which ends with the process (flock(2)).
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// openOwn opens a file or folder of the caller's, and no link.
func openOwn(name string, access int) (*os.File, error) {
	f, err := os.OpenFile(name, access|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && ownerOf(info).uid != os.Geteuid() {
		err = fmt.Errorf("%s is of user %d: remove it", name, ownerOf(info).uid)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
