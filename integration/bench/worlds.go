//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/nsjail/world"
)

const worldRounds = 9

// lddScript is how the Mini-FreeBSD script of 2007 did it: it copies the binaries that it
// is given, and what ldd(1) says that they need.
const lddScript = `root=$1; shift
for bin; do
	mkdir -p "$root${bin%/*}"
	cp "$bin" "$root$bin"
	ldd "$bin" 2>/dev/null | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "$root${lib%/*}"
		cp "$lib" "$root$lib"
	done
done
`

// A worldMaker is one way to a root file system. It makes it in a folder that is not there.
type worldMaker struct {
	name   string
	onDisk bool // else in memory
	cmd    func(to string) *exec.Cmd
}

// worldMakers are all ways to the root of a profile; ready is one that is made already.
func worldMakers(jailtap, ready string, bins []string) []worldMaker {
	build := func(more ...string) func(string) *exec.Cmd {
		return func(to string) *exec.Cmd {
			return exec.Command(jailtap, append([]string{"world", "build", "-o", to}, more...)...)
		}
	}
	return []worldMaker{
		{"cp+ldd script", false, func(to string) *exec.Cmd {
			return exec.Command("sh", append([]string{"-c", lddScript, "sh", to}, bins...)...)
		}},
		{"`cp -a` of the ready tree", false, func(to string) *exec.Cmd { return exec.Command("cp", "-a", ready, to) }},
		{"`jailtap world build --profile interactive`", false, build("--profile", "interactive")},
		{"… `--link`, on the system's file system", true, build("--profile", "interactive", "--link")},
		{"`jailtap world build --overlay` of the ready tree", false, build("--overlay", ready)},
		{"`jailtap version`, which is to start the program", false, func(string) *exec.Cmd { return exec.Command(jailtap, "version") }},
	}
}

// worldPlaces are where roots are made, removed with what is in them by clean. Copies
// go to a tmpfs, since file systems on disks differ from one minute to the next: ext4
// without a journal goes around inodes that were freed in the last minutes
// (recently_deleted in fs/ext4/ialloc.c), and takes four times as long for it.
func worldPlaces() (memory, disk string, clean func(), err error) {
	if memory, err = os.MkdirTemp("/dev/shm", "jailtap-bench-"); err != nil {
		return "", "", nil, err
	}
	if disk, err = os.MkdirTemp("", "jailtap-bench-"); err != nil {
		os.RemoveAll(memory)
	}
	return memory, disk, func() {
		os.RemoveAll(memory)
		os.RemoveAll(disk)
	}, err
}

// benchWorlds measures how long a root file system takes.
func benchWorlds(w io.Writer, jailtap string, rounds int) error {
	memory, disk, clean, err := worldPlaces()
	if err != nil {
		return err
	}
	defer clean()
	ready := filepath.Join(memory, "ready")
	bins, err := binariesOf("interactive")
	if err != nil {
		return err
	}
	p, err := world.Builtin("interactive")
	if err != nil {
		return err
	}
	made, err := world.Build(context.Background(), p, world.Options{Target: ready})
	if err != nil {
		return err
	}
	makers := worldMakers(jailtap, ready, bins)
	times := make([][]time.Duration, len(makers))
	for round := range rounds {
		for i, m := range makers {
			took, err := m.makeIn(memory, disk, round)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			times[i] = append(times[i], took)
		}
	}
	fmt.Fprintf(w, "\n## Root file systems\n\nThe profile `interactive`: %d binaries, %d files, %s. Times are of whole processes; roots are in a tmpfs.\n\n", len(bins), made.Files, world.Megabytes(made.Bytes))
	fmt.Fprint(w, "| made by | ms | of the script | of `cp -a` |\n| --- | --- | --- | --- |\n")
	script, copied := median(times[0]), median(times[1])
	for i, m := range makers {
		took := median(times[i])
		fmt.Fprintf(w, "| %s | %.1f | 1/%.1f | %.2f |\n", m.name, ms(took), float64(script)/float64(took), float64(took)/float64(copied))
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// makeIn makes a root in memory, where it does not stay, or on the disk, where it stays
// until all are made.
func (m worldMaker) makeIn(memory, disk string, round int) (time.Duration, error) {
	if m.onDisk {
		return m.make(filepath.Join(disk, fmt.Sprintf("made-%d", round)))
	}
	dir, err := os.MkdirTemp(memory, "")
	if err != nil {
		return 0, err
	}
	took, err := m.make(filepath.Join(dir, "made"))
	return took, errors.Join(err, os.RemoveAll(dir))
}

// make makes a root.
func (m worldMaker) make(to string) (time.Duration, error) {
	cmd := m.cmd(to)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	unix.Unmount(to, unix.MNT_DETACH) // is not mounted, but for the overlay
	return took, nil
}

// binariesOf are those of a profile that this system has.
func binariesOf(profile string) (bins []string, err error) {
	p, err := world.Builtin(profile)
	if err != nil {
		return nil, err
	}
	for _, name := range p.Bins {
		if bin, err := exec.LookPath(strings.TrimSuffix(name, "?")); err == nil {
			bins = append(bins, bin)
		}
	}
	return bins, nil
}
