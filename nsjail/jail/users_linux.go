//go:build amd64 || arm64

package jail

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxUsersFile is how much of a jail's passwd(5) or group(5) is read.
const maxUsersFile = 1 << 20

// readInside reads lines of a file in a jail's tree, fields with colons between
// them. There may be no such file.
func (j *Jail) readInside(path string) ([][]string, error) {
	root, err := unix.Open(j.rec.Spec.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, rootError(j.rec.Spec.Path, err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("jail %s: /%s in it: %w", j.rec.Spec.Name, path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var list [][]string
	lines := bufio.NewScanner(io.LimitReader(f, maxUsersFile))
	for lines.Scan() {
		list = append(list, strings.Split(lines.Text(), ":"))
	}
	return list, nil
}

func (j *Jail) lookupUser(name string) (u User, home, shell string, err error) {
	users, err := j.readInside("etc/passwd")
	if err != nil {
		return u, "", "", err
	}
	for _, f := range users {
		if len(f) < 7 || f[0] != name && f[2] != name {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 31)
		gid, err2 := strconv.ParseUint(f[3], 10, 31)
		if err1 != nil || err2 != nil {
			continue
		}
		u = User{UID: uint32(uid), GID: uint32(gid)}
		u.Groups, err = j.groupsOf(f[0])
		return u, cmp.Or(f[5], "/"), cmp.Or(f[6], "/bin/sh"), err
	}
	if name == "root" || name == "0" { // of a tree without users
		return User{}, "/", "/bin/sh", nil
	}
	return u, "", "", fmt.Errorf("jail %s: unknown user %q: its /etc/passwd has none of that name", j.rec.Spec.Name, name)
}

func (j *Jail) groupsOf(name string) ([]uint32, error) {
	groups, err := j.readInside("etc/group")
	if err != nil {
		return nil, err
	}
	var list []uint32
	for _, f := range groups {
		if len(f) < 4 {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, err := strconv.ParseUint(f[2], 10, 31); err == nil && member == name {
				list = append(list, uint32(gid))
			}
		}
	}
	return list, nil
}

// surroundings are what commands of the start and the stop run in: exec.clean and
// exec.jail_user.
func (j *Jail) surroundings() (env []string, u User, dir string, err error) {
	c := &j.rec.Spec.Commands
	name := cmp.Or(c.User, "root")
	if !c.Clean && c.User == "" {
		return os.Environ(), User{}, "/", nil
	}
	u, home, shell, err := j.lookupUser(name)
	if err != nil {
		return nil, u, "", err
	}
	env = os.Environ()
	if c.Clean {
		env = CleanEnv(name, home, shell)
	}
	if c.User != "" {
		dir = home
	}
	return env, u, dir, nil
}
