package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// makeSquashfs has mksquashfs(1) read a tar archive, so that owners and devices
// need no privilege.
func makeSquashfs(ctx context.Context, c *collector, o Options) error {
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		return fmt.Errorf("squashfs needs mksquashfs(1), 4.5 or later: install squashfs-tools: %w", err)
	}
	return makeFile(o, func(w *target) error {
		var said bytes.Buffer
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "-", w.beside, "-tar", "-noappend", "-quiet", "-no-progress")
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(c.newest().Unix(), 10))
		cmd.Stdout, cmd.Stderr = &said, &said
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		err = writeTar(ctx, in, c)
		if err != nil {
			cancel() // it must not take what it has for all
		}
		err = errors.Join(err, in.Close())
		if ended := cmd.Wait(); ended != nil {
			return errors.Join(fmt.Errorf("mksquashfs: %w: %s", ended, strings.TrimSpace(said.String())), err)
		}
		return err
	})
}
