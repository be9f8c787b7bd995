package world

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A copier copies files in the kernel: it shares the blocks where the file
// system can (ioctl_ficlone(2)), and else has them copied (copy_file_range(2),
// which io.CopyN comes to).
type copier struct {
	noClone atomic.Bool // was tried
}

// copy copies all of src, and returns how many bytes that was.
func (c *copier) copy(ctx context.Context, dst, src *os.File) (int64, error) {
	if !c.noClone.Load() {
		if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
			info, err := dst.Stat()
			if err != nil {
				return 0, err
			}
			return info.Size(), nil
		}
		c.noClone.Store(true)
	}
	return copyPieces(ctx, dst, src)
}

// xattrs are the attributes that belong to a file whatever system it is on:
// not the labels of SELinux, and not those of IMA.
func (t *tree) xattrs(name string) (map[string]string, error) {
	dir, err := t.handle(path.Dir(name))
	if err != nil {
		return nil, err
	}
	// There is no listxattrat(2) before Linux 6.13; the folder's descriptor in
	// /proc is the same.
	return xattrsAt("/proc/self/fd/" + strconv.Itoa(dir.fd) + "/" + path.Base(name))
}

// xattrsAt does not follow a link that has taken the file's place.
func xattrsAt(name string) (map[string]string, error) {
	list := make([]byte, 1<<10)
	n, err := unix.Llistxattr(name, list)
	if n <= 0 || err != nil {
		return nil, nil // this file system has none
	}
	found := map[string]string{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if attr != "security.capability" && !strings.HasPrefix(attr, "user.") {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(name, attr, value)
		if err != nil {
			return nil, err
		}
		found[attr] = string(value[:n])
	}
	return found, nil
}

func setXattr(f *os.File, name, value string) error {
	return unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
}

// makeDevice makes a device node in a folder (mknod(2)).
func makeDevice(dir *os.Root, name string, e *Entry) error {
	at, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer at.Close()
	kind := uint32(unix.S_IFBLK)
	if e.Mode&fs.ModeCharDevice != 0 {
		kind = unix.S_IFCHR
	}
	return unix.Mknodat(int(at.Fd()), name, kind|uint32(e.Mode.Perm()), int(unix.Mkdev(e.Major, e.Minor)))
}

// exchange swaps two names, so that at any time one of the two is there.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// mountsIn are the mount points at a folder and below it
// (proc_pid_mountinfo(5)).
func mountsIn(dir string) (found []string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("/proc is not mounted, so that nobody knows what is mounted in " + dir)
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			if at := unescape.Replace(fields[4]); at == dir || strings.HasPrefix(at, strings.TrimSuffix(dir, "/")+"/") {
				found = append(found, at)
			}
		}
	}
	return found, err
}
