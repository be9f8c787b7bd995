package nsjail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func openNamespace(nameOrID string) (*Jail, error) {
	line, err := jls(nameOrID, "jid")
	if err != nil {
		return nil, fmt.Errorf("find jail %q: %w", nameOrID, err)
	}
	params, err := parseJLS(line)
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(params["jid"], 10, 31)
	if err != nil {
		return nil, fmt.Errorf("jls printed %q for the number of jail %s", line, nameOrID)
	}
	return &Jail{name: "jail " + nameOrID, id: ID{Ino: id}}, nil
}

func openPID(pid int) (*Jail, error) {
	out, err := output("/bin/ps", "-o", "jid=", "-p", strconv.Itoa(pid))
	id := strings.TrimSpace(out)
	switch {
	case err != nil || id == "":
		return nil, fmt.Errorf("unknown process %d: it has ended or never was: %w", pid, fs.ErrNotExist)
	case id == "0":
		return nil, fmt.Errorf("process %d is in no jail: name addresses instead", pid)
	}
	return openNamespace(id)
}

func (j *Jail) do(func() error) error {
	return fmt.Errorf("run a function in %s: %w here: a process that has entered a jail stays there (jail_attach(2))", j, errors.ErrUnsupported)
}

func (j *Jail) addresses() ([]netip.Prefix, error) {
	line, err := jls(strconv.FormatUint(j.id.Ino, 10), "ip4.addr", "ip6.addr")
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", j, err)
	}
	return jailAddresses(line)
}

// watch looks again and again, since the system does not tell of changes.
func (j *Jail) watch(ctx context.Context, report func([]netip.Prefix)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last []netip.Prefix
	for first := true; ctx.Err() == nil; first = false {
		now, err := j.addresses()
		if err != nil {
			return err
		}
		if first || !slices.Equal(now, last) {
			report(now)
			last = now
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

// jls prints parameters of a jail as NAME=VALUE; jls(8).
func jls(nameOrID string, params ...string) (string, error) {
	return output("/usr/sbin/jls", append([]string{"-n", "-j", nameOrID}, params...)...)
}

// output is what a command prints, or an error with its complaint, which for
// these commands is that there is no such jail or process.
func output(path string, args ...string) (string, error) {
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, not for the command
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%s: %w", bytes.TrimSpace(exit.Stderr), fs.ErrNotExist)
	}
	return string(out), err
}
