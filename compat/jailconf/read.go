package jailconf

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Read reads a file, an rc.conf(5) or a jail.conf(5), whichever it is, and with
// it the devfs.rules(5) that is beside it, if there is one.
func Read(path string) (*Config, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	c, err := ReadFrom(path, file)
	if err != nil {
		return nil, err
	}
	c.Rulesets, err = readRulesets(filepath.Join(filepath.Dir(path), "devfs.rules"))
	return c, err
}

// ReadFrom reads an rc.conf(5) or a jail.conf(5) that is already open.
func ReadFrom(name string, r io.Reader) (*Config, error) {
	text, err := readAll(name, r)
	if err != nil {
		return nil, err
	}
	if IsRC(text) {
		return ParseRC(name, strings.NewReader(text), nil)
	}
	return Parse(name, strings.NewReader(text), nil)
}

func readRulesets(path string) (Rulesets, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ParseRulesets(path, file)
}
