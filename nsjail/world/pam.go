package world

import (
	"path"
	"strings"
)

// pam brings the configuration of PAM services and the modules that it names
// (pam.conf(5)).
func (c *collector) pam() error {
	if len(c.p.PAM) == 0 {
		return nil
	}
	read := map[string]bool{}
	for _, service := range append([]string{"other"}, c.p.PAM...) {
		if err := c.pamService(service, "the profile", service == "other", read); err != nil {
			return err
		}
	}
	return c.bringIfThere("/etc/security/*.conf", "/etc/environment", "/etc/login.defs")
}

func (c *collector) pamService(service, by string, isOptional bool, read map[string]bool) error {
	if read[service] {
		return nil
	}
	read[service] = true
	for _, dir := range []string{"/etc/pam.d", "/usr/lib/pam.d"} {
		file := path.Join(dir, service)
		text, err := c.t.readFile(file)
		if err != nil {
			continue
		}
		if err := c.bring(file, by); err != nil {
			return err
		}
		for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
			if err := c.pamLine(line, file, read); err != nil {
				return err
			}
		}
		return nil
	}
	if !isOptional {
		c.missing = append(c.missing, missing{"PAM service " + service, by})
	}
	return nil
}

// pamLine follows one line: type, control, module or service, arguments. A
// control may be words in brackets; a type with - is a module that need not be.
func (c *collector) pamLine(line, file string, read map[string]bool) error {
	line, _, _ = strings.Cut(line, "#")
	if before, rest, bracketed := strings.Cut(line, "["); bracketed {
		_, rest, _ = strings.Cut(rest, "]")
		line = before + " [] " + rest
	}
	words := strings.Fields(line)
	switch {
	case len(words) >= 2 && words[0] == "@include":
		return c.pamService(words[1], file, false, read)
	case len(words) < 3:
		return nil
	case words[1] == "include" || words[1] == "substack":
		return c.pamService(words[2], file, false, read)
	}
	module := words[2]
	if path.IsAbs(module) {
		return c.bring(module, file)
	}
	found := c.libraryFiles(path.Join("security", globQuote.Replace(module)))
	if len(found) == 0 {
		if !strings.HasPrefix(words[0], "-") {
			c.missing = append(c.missing, missing{"PAM module " + module, file})
		}
		return nil
	}
	return c.bring(found[0], file)
}

// libraryFiles are the files that match a pattern in the folders where
// libraries of the system are.
func (c *collector) libraryFiles(pattern string) (found []string) {
	for _, dir := range []string{"/lib/*-linux-*", "/lib64", "/lib", "/usr/lib/*-linux-*", "/usr/lib64", "/usr/lib"} {
		found = append(found, c.t.glob(path.Join(dir, pattern))...)
	}
	return found
}
