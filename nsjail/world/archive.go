package world

import (
	"archive/tar"
	"bufio"
	"context"
	"io"
	"io/fs"
	"time"
)

// pieceSize is how much is written at a time to archives.
const pieceSize = 1 << 20

// writeTar writes a pax archive, sorted, with whole seconds: the same bytes for
// the same manifest.
func writeTar(ctx context.Context, w io.Writer, c *collector) error {
	buffered := bufio.NewWriterSize(w, pieceSize)
	archive := tar.NewWriter(buffered)
	err := c.each(ctx, func(e *Entry) error {
		if err := archive.WriteHeader(e.tarHeader()); err != nil || e.Size == 0 {
			return err
		}
		return e.copyTo(ctx, archive)
	})
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// each goes through the manifest, for archives.
func (c *collector) each(ctx context.Context, visit func(*Entry) error) error {
	entries := c.m.sorted()
	for i, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := visit(e); err != nil {
			return err
		}
		if c.o.Progress != nil {
			c.o.Progress(i+1, len(entries))
		}
	}
	return nil
}

// tarHeader describes an entry as GNU tar and bsdtar do; attributes are pax
// records as star invented them.
func (e *Entry) tarHeader() *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: e.Path, Mode: unixMode(e.Mode), Uid: e.UID, Gid: e.GID,
		Size: e.Size, ModTime: e.ModTime.Truncate(time.Second),
	}
	switch {
	case e.Same != "":
		h.Typeflag, h.Linkname = tar.TypeLink, e.Same
	case e.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, e.Path+"/"
	case e.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
	case e.Mode&fs.ModeDevice != 0:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(e.Major), int64(e.Minor)
		if e.Mode&fs.ModeCharDevice != 0 {
			h.Typeflag = tar.TypeChar
		}
	}
	for name, value := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	return h
}

// unixMode is permissions and the bits above them as chmod(2) has them.
func unixMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  int64
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if mode&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}

// copyTo writes exactly the bytes that the entry was said to have.
func (e *Entry) copyTo(ctx context.Context, w io.Writer) error {
	src, err := e.open()
	if err != nil {
		return err
	}
	defer src.Close()
	n, err := io.Copy(w, io.LimitReader(&interruptible{src, ctx}, e.Size))
	if err == nil && n != e.Size {
		err = e.changed(n)
	}
	return err
}
