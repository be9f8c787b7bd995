//go:build !unix

package world

import (
	"io/fs"
	"os"
)

// A handle is a folder that is open.
type handle struct{ dir *os.Root }

func openHandle(root *os.Root) (handle, error) { return handle{root}.folder(".") }

func (h handle) close() { h.dir.Close() }

func (h handle) folder(name string) (handle, error) {
	dir, err := h.dir.OpenRoot(name)
	return handle{dir}, err
}

func (h handle) lstat(name string) (fs.FileInfo, error) { return h.dir.Lstat(name) }

func (h handle) readlink(name string) (string, error) { return h.dir.Readlink(name) }

func (handle) link(string, handle, string) error { return unsupported("a hard link") }

// A reader reads a file.
type reader struct{ *os.File }

func (h handle) reader(name string) (reader, error) {
	f, err := h.dir.Open(name)
	return reader{f}, err
}
