package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Overlay makes a root in no time: it mounts a world that is ready at a folder, which
// must be empty or not there, under a layer that takes what is written (overlayfs of
// Linux, Documentation/filesystems/overlayfs.rst). The layer is beside the folder, and
// stays when it is unmounted; what it has is the jail's. The ready world must not be
// changed meanwhile, nor be updated. Needs CAP_SYS_ADMIN.
func Overlay(ready, dir string) (r Result, err error) {
	start := time.Now()
	ready, err = filepath.Abs(ready)
	if err != nil {
		return r, err
	}
	if _, err := os.Lstat(recordName(ready)); err != nil {
		return r, fmt.Errorf("%s is no world: build one there: %w", ready, err)
	}
	w := newTarget(dir, true)
	if err := w.mayBeMade(); err != nil {
		return r, err
	}
	if err := w.acquire(); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.discard()) }()
	err = mountLayer(ready, w.final)
	r.Elapsed = time.Since(start)
	return r, err
}

// mountLayer makes the layer, or takes one that is there from an earlier mount.
func mountLayer(ready, dir string) (err error) {
	layer, err := filepath.Abs(besides(dir, "layer"))
	if err != nil {
		return err
	}
	if err := makeLayer(layer, ready); err != nil {
		return err
	}
	made := os.Mkdir(dir, 0o755) == nil
	if err := mountOverlay(ready, layer, dir); err != nil {
		if made {
			err = errors.Join(err, os.Remove(dir))
		}
		return err
	}
	return nil
}

// makeLayer makes the folders that overlayfs wants. The upper one has the mode and the
// owner of the root that it will be.
func makeLayer(layer, ready string) error {
	info, err := os.Stat(ready)
	if err != nil {
		return err
	}
	for _, dir := range []string{layer, filepath.Join(layer, "work"), filepath.Join(layer, "upper")} {
		if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			return err
		}
	}
	upper, own := filepath.Join(layer, "upper"), ownerOf(info)
	return errors.Join(os.Chown(upper, own.uid, own.gid), os.Chmod(upper, info.Mode().Perm()))
}

// mountOverlay mounts by the calls that take each option by itself (fsconfig(2), Linux
// 5.2): in the one string of mount(2) a comma would end it. Colons part lower folders.
func mountOverlay(ready, layer, dir string) error {
	made, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen overlay", err)
	}
	defer unix.Close(made)
	for _, option := range [][2]string{
		{"source", "jailtap-world"},
		{"lowerdir", strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(ready)},
		{"upperdir", filepath.Join(layer, "upper")},
		{"workdir", filepath.Join(layer, "work")},
	} {
		if err := unix.FsconfigSetString(made, option[0], option[1]); err != nil {
			return fmt.Errorf("overlay: %s %q: %w", option[0], option[1], err)
		}
	}
	if err := unix.FsconfigCreate(made); err != nil {
		return fmt.Errorf("overlay of %s with a layer in %s: %w", ready, layer, err)
	}
	mounted, err := unix.Fsmount(made, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mounted)
	if err := unix.MoveMount(mounted, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount at %s: %w", dir, err)
	}
	return nil
}
