package nsjail

import (
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

// procDir is where proc(5) is.
const procDir = "/proc"

// sampling is how long it is looked who uses the CPU. FreeBSD keeps a decaying
// average, which Linux does not.
const sampling = 100 * time.Millisecond

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on all of Go's
// architectures (sysconf(3), _SC_CLK_TCK).
const tick = time.Second / 100

// A procStat is what is needed of /proc/PID/stat (proc_pid_stat(5)).
type procStat struct {
	command      string
	state        byte
	group        int
	user, system time.Duration
	start        time.Duration // since the system was booted
	resident     int64         // KiB
}

func readStat(path string) (procStat, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(text))
}

// parseStat reads the fields behind the command, which ends at the last
// bracket: it may have brackets and blanks itself.
func parseStat(text string) (procStat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("unknown form of /proc/PID/stat: %q", text)
	}
	fields := strings.Fields(text[end+1:]) // fields[0] is field 3 in the manual
	if len(fields) < 22 {
		return procStat{}, fmt.Errorf("unknown form of /proc/PID/stat: %q", text)
	}
	n := func(field int) int64 {
		v, _ := strconv.ParseInt(fields[field-3], 10, 64)
		return v
	}
	return procStat{
		command:  text[open+1 : end],
		state:    fields[0][0],
		group:    int(n(5)),
		user:     time.Duration(n(14)) * tick,
		system:   time.Duration(n(15)) * tick,
		start:    time.Duration(n(22)) * tick,
		resident: n(24) * int64(os.Getpagesize()/1024),
	}, nil
}

func processDir(pid int) string { return filepath.Join(procDir, strconv.Itoa(pid)) }

// look reads all about some processes, with the CPU that they use meanwhile.
// Those that end meanwhile are left out.
func look(pids []int) []Process {
	before := map[int]time.Duration{}
	for _, pid := range pids {
		before[pid] = ran(pid)
	}
	start := time.Now()
	time.Sleep(sampling)
	var list []Process
	for _, pid := range pids {
		p, err := process(pid)
		if err != nil {
			continue
		}
		if used := ran(pid) - before[pid]; used > 0 {
			p.CPU = 100 * float64(used) / float64(time.Since(start))
		}
		list = append(list, p)
	}
	return list
}

// ran is how long the threads of a process have run (Documentation/scheduler/
// sched-stats.rst: the first number of schedstat, in nanoseconds).
func ran(pid int) time.Duration {
	files, _ := filepath.Glob(filepath.Join(processDir(pid), "task/*/schedstat"))
	var sum time.Duration
	for _, file := range files {
		text, _ := os.ReadFile(file)
		first, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(first, 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

func process(pid int) (Process, error) {
	st, err := readStat(filepath.Join(processDir(pid), "stat"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return Process{}, fmt.Errorf("unknown process %d: it has ended or never was: %w", pid, fs.ErrNotExist)
	}
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Command: st.command, User: st.user, System: st.system, Resident: st.resident}
	p.Zombie = st.state == 'Z' || st.state == 'X'
	p.Runnable = st.state == 'R' || anyRuns(pid)
	p.Real = max(0, sinceBoot()-st.start)
	p.State = stateWord(pid, st.state, p.Runnable)
	return p, nil
}

// anyRuns reports whether a thread of the process is runnable.
func anyRuns(pid int) bool {
	files, _ := filepath.Glob(filepath.Join(processDir(pid), "task/*/stat"))
	return slices.ContainsFunc(files, func(file string) bool {
		st, err := readStat(file)
		return err == nil && st.state == 'R'
	})
}

func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func sigInfo(pid int) (string, error) {
	if _, err := process(pid); err != nil {
		return "", err
	}
	list := look([]int{pid})
	if len(list) == 0 {
		return "", fmt.Errorf("process %d has ended: %w", pid, fs.ErrNotExist)
	}
	load, err := loadAverage()
	return list[0].Line(load), err
}

// loadAverage is that of the last minute.
func loadAverage() (float64, error) {
	text, err := os.ReadFile(filepath.Join(procDir, "loadavg"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(first, 64)
}

func foreground(tty *os.File) (int, error) {
	group, err := foregroundGroup(tty)
	if err != nil {
		return 0, err
	}
	p, ok := pick(group)
	if !ok {
		return 0, fmt.Errorf("%s has no foreground process: %w", tty.Name(), fs.ErrNotExist)
	}
	return p.PID, nil
}

func terminalInfo(tty *os.File) (string, error) {
	group, err := foregroundGroup(tty)
	if err != nil {
		return "", err
	}
	load, err := loadAverage()
	if err != nil {
		return "", err
	}
	p, ok := pick(group)
	switch {
	case ok:
		return p.Line(load), nil
	case group <= 0:
		return loadWords(load) + "no foreground process group", nil
	}
	return loadWords(load) + "empty foreground process group", nil
}

// pick is the process of a group that FreeBSD would tell of. ok says whether there
// is one.
func pick(group int) (p Process, ok bool) {
	list := look(members(group))
	if len(list) == 0 {
		return p, false
	}
	slices.SortFunc(list, comparePicked)
	return list[0], true
}

// foregroundGroup does not use tty.Fd, which may make the file a blocking one
// while others read it.
func foregroundGroup(tty *os.File) (group int, err error) {
	conn, err := tty.SyscallConn()
	if err == nil {
		var ioctlErr error
		err = conn.Control(func(fd uintptr) {
			group, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP)
		})
		err = errors.Join(err, ioctlErr)
	}
	if err != nil {
		return 0, fmt.Errorf("foreground process of %s: %w", tty.Name(), err)
	}
	return group, nil
}

// members are the processes of a process group.
func members(group int) []int {
	if group <= 0 { // that of a session outside of our pid namespace is 0
		return nil
	}
	var pids []int
	for _, pid := range processes() {
		if st, err := readStat(filepath.Join(processDir(pid), "stat")); err == nil && st.group == group {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processes are all that proc(5) shows.
func processes() []int {
	entries, _ := os.ReadDir(procDir)
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
