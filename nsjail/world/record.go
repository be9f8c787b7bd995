package world

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A record says what was put into a folder. It lies beside the folder, since
// who is in there could change it: what it says will be copied again.
type record struct {
	Profile Profile             `json:"profile"`
	Files   map[string]recorded `json:"files"` // by path in the world
}

// A recorded file is told by these from one that the jail has changed.
type recorded struct {
	Size int64     `json:"size"`
	Time time.Time `json:"time"`
	Link string    `json:"link,omitempty"`
}

func recordName(dir string) string { return besides(filepath.Clean(dir), "world.json") }

// Recorded is the profile that a folder was built of.
func Recorded(dir string) (Profile, error) {
	r, err := readRecord(dir)
	return r.Profile, err
}

func newRecord(c *collector) record {
	r := record{Profile: c.given, Files: map[string]recorded{}}
	for _, e := range c.m {
		if !e.Mode.IsDir() {
			r.Files[e.Path] = e.recorded(c.m)
		}
	}
	return r
}

// write writes the record of a folder under another name, which is that of the
// file. It has its own when the folder is whole. The caller has the target's lock: what
// has the name already is left from a process that was killed.
func (r record) write(dir string) (name string, err error) {
	name = recordName(dir) + ".partial"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	err = errors.Join(json.NewEncoder(f).Encode(r), f.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(name))
	}
	return name, nil
}

func (e *Entry) recorded(m manifest) recorded {
	size := e.Size
	if e.Same != "" {
		size = m[e.Same].Size
	}
	if e.Mode&fs.ModeSymlink != 0 {
		return recorded{Link: e.Link}
	}
	return recorded{Size: size, Time: e.ModTime.UTC()}
}

// readRecord reads the record of a world. If there is none the error wraps
// fs.ErrNotExist.
func readRecord(dir string) (record, error) {
	var r record
	f, err := openOwn(recordName(dir), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%s was not built here, for there is no %s: say with --profile what it shall have: %w", dir, recordName(dir), err)
	}
	if err != nil {
		return r, err
	}
	defer f.Close()
	const limit = 64 << 20
	if err := json.NewDecoder(io.LimitReader(f, limit)).Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return r, nil
}
