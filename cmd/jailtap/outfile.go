package main

import (
	"errors"
	"io/fs"
	"os"
)

// An outFile is a file being written.
type outFile struct {
	*os.File
	fresh bool // it did not exist before
}

func create(name string) (*outFile, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		return &outFile{file, true}, nil
	}
	if errors.Is(err, fs.ErrExist) {
		file, err = os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	}
	if err != nil {
		return nil, err
	}
	return &outFile{file, false}, nil
}

// discard takes the file away again, if it is of our making.
func (f *outFile) discard() {
	f.Close()
	if f.fresh {
		os.Remove(f.Name())
	}
}
