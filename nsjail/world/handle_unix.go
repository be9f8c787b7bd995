//go:build unix

package world

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A handle is a folder that is open. It takes single names, and follows no links: so
// it leads nowhere but to what is in the folder. os.Root does the same with three times
// as many calls, since it must take paths, and makes files that can be waited for.
type handle struct{ fd int }

func openHandle(root *os.Root) (handle, error) {
	dir, err := root.Open(".")
	if err != nil {
		return handle{}, err
	}
	defer dir.Close()
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return handle{fd}, os.NewSyscallError("dup", err)
}

func (h handle) close() { unix.Close(h.fd) }

// open opens what has the name. O_NONBLOCK, for if it is a FIFO nobody need ever write
// into it.
func (h handle) open(name string, flags int) (fd int, err error) {
	err = single(name, func() error {
		fd, err = unix.Openat(h.fd, name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// folder opens a folder in it.
func (h handle) folder(name string) (handle, error) {
	fd, err := h.open(name, unix.O_DIRECTORY)
	return handle{fd}, err
}

// lstat describes what has the name.
func (h handle) lstat(name string) (fs.FileInfo, error) {
	var st unix.Stat_t
	if err := single(name, func() error { return unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return nil, err
	}
	return infoOf(name, &st), nil
}

// readlink is where a link points.
func (h handle) readlink(name string) (target string, err error) {
	var b [unix.PathMax]byte
	err = single(name, func() error {
		n, err := unix.Readlinkat(h.fd, name, b[:])
		target = string(b[:max(n, 0)])
		return err
	})
	return target, err
}

// link makes a hard link in another folder.
func (h handle) link(name string, to handle, newName string) error {
	return single(name, func() error {
		return single(newName, func() error { return unix.Linkat(h.fd, name, to.fd, newName, 0) })
	})
}

// reader opens a regular file.
func (h handle) reader(name string) (reader, error) {
	fd, err := h.open(name, 0)
	if err != nil {
		return reader{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return reader{}, fmt.Errorf("%s is not a regular file", name)
	}
	return reader{fd}, nil
}

// single calls for one name, which is no path, until no signal comes between.
func single(name string, call func() error) error {
	if name == "" || name == ".." || strings.Contains(name, "/") {
		return fmt.Errorf("%q: %w", name, fs.ErrInvalid)
	}
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// A reader reads a regular file.
type reader struct{ fd int }

func (r reader) Close() error { return unix.Close(r.fd) }

func (r reader) ReadAt(b []byte, off int64) (done int, err error) {
	for done < len(b) {
		n, err := unix.Pread(r.fd, b[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, os.NewSyscallError("pread", err)
		case n == 0:
			return done, io.EOF
		}
		done += max(n, 0)
	}
	return done, nil
}

// A fileInfo is what fstatat(2) says.
type fileInfo struct {
	name  string
	mode  fs.FileMode
	size  int64
	time  time.Time
	owner owner
}

func infoOf(name string, st *unix.Stat_t) *fileInfo {
	rdev := uint64(st.Rdev)
	return &fileInfo{
		name: path.Base(name), mode: modeOf(uint32(st.Mode)), size: st.Size, time: time.Unix(st.Mtim.Unix()),
		owner: owner{int(st.Uid), int(st.Gid), uint64(st.Nlink), fileID{uint64(st.Dev), uint64(st.Ino)}, unix.Major(rdev), unix.Minor(rdev)},
	}
}

// modeOf has the bits of inode(7) as package fs has them.
func modeOf(bits uint32) fs.FileMode {
	mode := fs.FileMode(bits & 0o777)
	for _, b := range []struct {
		bit  uint32
		mode fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if bits&b.bit != 0 {
			mode |= b.mode
		}
	}
	switch bits & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}

func (i *fileInfo) Name() string       { return i.name }
func (i *fileInfo) Size() int64        { return i.size }
func (i *fileInfo) Mode() fs.FileMode  { return i.mode }
func (i *fileInfo) ModTime() time.Time { return i.time }
func (i *fileInfo) IsDir() bool        { return i.mode.IsDir() }
func (i *fileInfo) Sys() any           { return nil }
