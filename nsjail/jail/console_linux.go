//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// consoleLog is where a jail's commands print, below its root.
const consoleLog = "var/log/console.log"

// openConsole opens the console log. The jail's tree is its own to change, so
// that no part of the path may be a link, and what is at its end has to be a file:
// a device or a pipe would do something, or wait.
func (j *Jail) openConsole() (*os.File, error) {
	if log := j.rec.Spec.Commands.ConsoleLog; log != "" {
		return os.OpenFile(log, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	}
	root, err := unix.Open(j.rec.Spec.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, rootError(j.rec.Spec.Path, err)
	}
	defer unix.Close(root)
	f, err := openLog(root)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EROFS) {
		return memoryLog()
	}
	if err != nil {
		return nil, fmt.Errorf("jail %s: open /%s in it: %w", j.rec.Spec.Name, consoleLog, err)
	}
	return f, nil
}

var errNoFile = errors.New("it is not a file, or a link leads there: remove it, or name a file of the host with exec.consolelog")

func openLog(root int) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	dir, err := unix.Openat2(root, path.Dir(consoleLog), how)
	if err == unix.ELOOP {
		return nil, errNoFile
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	name := path.Base(consoleLog)
	// O_EXCL: what is opened here was made here.
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_APPEND|unix.O_CLOEXEC, 0o644)
	if err == unix.EEXIST {
		fd, err = openFile(dir, name)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), consoleLog), nil
}

// openFile opens a file that is there, after a look at what it is.
func openFile(dir int, name string) (int, error) {
	look, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(look)
	var st unix.Stat_t
	if err := unix.Fstat(look, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errNoFile
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", look), unix.O_RDWR|unix.O_APPEND|unix.O_CLOEXEC, 0)
}

// memoryLog is for a jail that has no place for a log: what a command that fails
// has printed can be told all the same.
func memoryLog() (*os.File, error) {
	fd, err := unix.MemfdCreate("console.log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "console.log"), nil
}
