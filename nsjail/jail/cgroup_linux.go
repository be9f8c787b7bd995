//go:build amd64 || arm64

package jail

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where the whole cgroup2 hierarchy is mounted (cgroups(7)): alone,
// or, on a hybrid system, beside those of version 1.
func cgroupRoot() (string, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		place, kind, ok := strings.Cut(lines.Text(), " - ")
		f := strings.Fields(place)
		if ok && strings.HasPrefix(kind, "cgroup2 ") && len(f) > 4 && f[3] == "/" {
			return f[4], nil
		}
	}
	return "", errors.New("jails need cgroup v2, which is not mounted (mount -t cgroup2 none /sys/fs/cgroup)")
}

// A limit is what a controller does for a jail.
type limit struct {
	param, controller, file, value string
}

func (l Limits) list() []limit {
	var list []limit
	if l.Memory > 0 {
		list = append(list, limit{"limit.memory", "memory", "memory.max", strconv.FormatInt(l.Memory, 10)})
	}
	if l.PIDs > 0 {
		list = append(list, limit{"limit.pids", "pids", "pids.max", strconv.FormatInt(l.PIDs, 10)})
	}
	if l.CPU > 0 {
		const period = 100_000 // µs
		list = append(list, limit{"limit.cpu", "cpu", "cpu.max", fmt.Sprintf("%d %d", l.CPU*period/100, period)})
	}
	return list
}

// makeCgroup makes a jail's cgroup and sets its limits. One that is there already
// is an error.
func makeCgroup(root, dir string, limits Limits) error {
	parent := filepath.Dir(dir)
	if err := makeBelow(parent, dir); err != nil {
		return err
	}
	for _, l := range limits.list() {
		for _, above := range []string{root, parent} {
			if err := enable(above, l); err != nil {
				return err
			}
		}
	}
	for _, l := range limits.list() {
		if err := os.WriteFile(filepath.Join(dir, l.file), []byte(l.value), 0); err != nil {
			return fmt.Errorf("%s: %w", l.param, err)
		}
	}
	return nil
}

// makeBelow makes a cgroup and the one that holds it, which whoever removes the
// last jail may remove in between.
func makeBelow(parent, dir string) error {
	for {
		if err := os.Mkdir(parent, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the cgroup of jails: %w", err)
		}
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make the jail's cgroup: %w", err)
		}
	}
}

// enable gives the cgroups below a directory a controller.
func enable(dir string, l limit) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("%s: %w", l.param, err)
	}
	if list := strings.Fields(string(have)); !slices.Contains(list, l.controller) {
		return fmt.Errorf("%s: the cgroup2 hierarchy at %s has no controller %q (it has: %s): it is of cgroup v1 here; boot with systemd.unified_cgroup_hierarchy=1, or leave the limit out",
			l.param, dir, l.controller, orNone(list))
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+l.controller), 0); err != nil {
		return fmt.Errorf("%s: hand on the controller %s in %s: %w", l.param, l.controller, dir, err)
	}
	return nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " ")
}

// killCgroup kills all that is in a cgroup. That there is none is no error.
func killCgroup(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err == nil {
			return fmt.Errorf("%s has no cgroup.kill: jails need Linux 5.14", dir)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill the jail's processes: %w", err)
	}
	return nil
}

// removeCgroup removes a cgroup whose processes were killed. That there is none is no
// error.
func removeCgroup(dir string) error {
	if err := waitEmpty(dir, 10*time.Second); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the jail's cgroup: %w", err)
	}
	os.Remove(filepath.Dir(dir)) // it may have other jails
	return nil
}

// waitEmpty waits until no process is in a cgroup. The kernel tells of changes to
// cgroup.events by POLLPRI, but up to 10 ms late (CGROUP_FILE_NOTIFY_MIN_INTV).
func waitEmpty(dir string, most time.Duration) error {
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer events.Close()
	text := make([]byte, 256)
	for end := time.Now().Add(most); ; {
		n, err := events.ReadAt(text, 0)
		if n == 0 && err != nil {
			return err
		}
		if strings.Contains(string(text[:n]), "populated 0") {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("processes %v of the jail do not end, %v after they were killed", members(dir), most)
		}
		poll := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// members are the processes in a cgroup, sorted.
func members(dir string) []int {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var list []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list
}
