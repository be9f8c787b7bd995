package nsjail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaceDir is where ip-netns(8) keeps named network namespaces.
const namespaceDir = "/run/netns"

func openNamespace(nameOrPath string) (*Jail, error) {
	path := nameOrPath
	if !strings.Contains(path, "/") {
		path = filepath.Join(namespaceDir, path)
	}
	j, err := open(path, "namespace "+nameOrPath)
	if errors.Is(err, fs.ErrNotExist) || nameOrPath == "" {
		return nil, fmt.Errorf("unknown network namespace %q: %s: %w", nameOrPath, known(), fs.ErrNotExist)
	}
	return j, err
}

// known says which namespaces have a name.
func known() string {
	entries, err := os.ReadDir(namespaceDir)
	if len(entries) == 0 || err != nil {
		return "there is none in " + namespaceDir
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return namespaceDir + " has " + strings.Join(names, ", ")
}

func openPID(pid int) (*Jail, error) {
	j, err := open(fmt.Sprintf("/proc/%d/ns/net", pid), fmt.Sprintf("namespace of process %d", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("unknown process %d: it has ended or never was: %w", pid, fs.ErrNotExist)
	}
	return j, err
}

func open(path, name string) (*Jail, error) {
	// O_NONBLOCK: a path may name anything, and opening a FIFO would wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%s: %w: it belongs to another user; CAP_SYS_PTRACE opens it (run with sudo)", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	j := &Jail{file: f, name: name}
	if err := j.identify(); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

// identify fills in the ID, if the file is that of a network namespace
// (ioctl_nsfs(2); a name whose mount is gone is an ordinary file).
func (j *Jail) identify() error {
	fd := int(j.file.Fd())
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%s: %s is not a network namespace", j.name, j.file.Name())
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", j.name, err)
	}
	j.id = ID{Dev: uint64(st.Dev), Ino: st.Ino}
	return nil
}
