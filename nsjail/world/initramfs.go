package world

import (
	"bufio"
	"context"
	"io"
	"io/fs"

	"github.com/cavaliergopher/cpio"
)

// writeInitramfs writes a cpio archive of format newc, which the kernel unpacks
// into its first root (Documentation/driver-api/early-userspace/buffer-format).
func writeInitramfs(ctx context.Context, w io.Writer, c *collector) error {
	buffered := bufio.NewWriterSize(w, pieceSize)
	archive := cpio.NewWriter(buffered)
	numbers := c.m.inodes()
	err := c.each(ctx, func(e *Entry) error {
		whole := numbers.whole(e)
		if err := archive.WriteHeader(numbers.header(e, whole)); err != nil {
			return err
		}
		if e.Mode&fs.ModeSymlink != 0 {
			_, err := io.WriteString(archive, e.Link)
			return err
		}
		if whole == nil {
			return nil
		}
		return whole.copyTo(ctx, archive)
	})
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// inodes number the files of an archive, hard links of one file alike. The
// bytes come with the last of them, as GNU cpio has it.
type inodes struct {
	number map[string]int64
	names  map[int64]int
	last   map[int64]string
	first  map[int64]*Entry
}

func (m manifest) inodes() inodes {
	n := inodes{map[string]int64{}, map[int64]int{}, map[int64]string{}, map[int64]*Entry{}}
	for i, e := range m.sorted() {
		number := int64(i + 1)
		if e.Same != "" {
			number = n.number[e.Same] // which comes before
		} else {
			n.first[number] = e
		}
		n.number[e.Path] = number
		n.names[number]++
		n.last[number] = e.Path
	}
	return n
}

// whole is the entry whose bytes are written with this one; nil: none are.
func (n inodes) whole(e *Entry) *Entry {
	number := n.number[e.Path]
	if !e.Mode.IsRegular() || n.last[number] != e.Path {
		return nil
	}
	return n.first[number]
}

func (n inodes) header(e, whole *Entry) *cpio.Header {
	number := n.number[e.Path]
	h := &cpio.Header{
		Name: e.Path, Mode: cpio.FileMode(unixMode(e.Mode)), Uid: e.UID, Guid: e.GID,
		ModTime: e.ModTime, Inode: number, Links: n.names[number],
	}
	switch {
	case e.Mode.IsDir():
		h.Mode |= cpio.TypeDir
	case e.Mode&fs.ModeSymlink != 0:
		h.Mode |= cpio.TypeSymlink
		h.Size = int64(len(e.Link))
	case e.Mode&fs.ModeCharDevice != 0:
		h.Mode |= cpio.TypeChar
	case e.Mode&fs.ModeDevice != 0:
		h.Mode |= cpio.TypeBlock
	default:
		h.Mode |= cpio.TypeReg
	}
	if whole != nil {
		h.Size = whole.Size
	}
	return h
}
