package world

import (
	"bytes"
	"path"
	"strings"
)

// scanScript brings the interpreter of a file that begins with #! (execve(2)),
// and what env(1) would start.
func (c *collector) scanScript(name string) error {
	words, err := c.t.interpreter(name)
	if err != nil || len(words) == 0 {
		return err
	}
	if err := c.bring(words[0], "/"+name); err != nil {
		return err
	}
	program := startedByEnv(words)
	if program == "" {
		return nil
	}
	at, err := c.command(program)
	if err != nil {
		c.missing = append(c.missing, missing{"interpreter " + program, "/" + name})
		return nil
	}
	return c.bringPlace(at)
}

// interpreter is the words of the first line, as far as Linux reads it
// (BINPRM_BUF_SIZE in uapi/linux/binfmts.h); none if it is not a script.
func (t *tree) interpreter(name string) ([]string, error) {
	f, err := t.reader(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line := make([]byte, 256)
	n, _ := f.ReadAt(line, 0) // a short file is no error
	line, isScript := bytes.CutPrefix(line[:n], []byte("#!"))
	if !isScript {
		return nil, nil
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	return strings.Fields(string(line)), nil
}

// startedByEnv is the program that env(1) starts, or "".
func startedByEnv(words []string) string {
	if path.Base(words[0]) != "env" {
		return ""
	}
	for _, word := range words[1:] {
		if !strings.HasPrefix(word, "-") && !strings.Contains(word, "=") {
			return word
		}
	}
	return ""
}
