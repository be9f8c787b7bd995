package world

import (
	"fmt"
	"path"
	"strings"
)

// gconv brings what iconv(3) of glibc opens to convert from and to character
// sets: the modules, and the list of all that there are.
func (c *collector) gconv() error {
	if len(c.p.Gconv) == 0 {
		return nil
	}
	lists := append(c.libraryFiles("gconv/gconv-modules"), c.libraryFiles("gconv/gconv-modules.d/*.conf")...)
	modules := map[string][]string{} // by character set
	aliases := map[string]string{}
	for _, list := range lists {
		text, err := c.t.readFile(list)
		if err != nil {
			return err
		}
		if err := c.bring(list, "iconv(3)"); err != nil {
			return err
		}
		dir := strings.TrimSuffix(path.Dir(list), "/gconv-modules.d")
		for line := range strings.Lines(text) {
			readGconv(line, dir, modules, aliases)
		}
	}
	for _, set := range c.p.Gconv {
		set = strings.ToUpper(set)
		if name, ok := aliases[set]; ok {
			set = name
		}
		if len(modules[set]) == 0 {
			c.missing = append(c.missing, fmt.Errorf("unknown character set %q: iconv -l lists those that there are", set))
		}
		for _, module := range modules[set] {
			if err := c.bring(module, "iconv(3)"); err != nil {
				return err
			}
		}
	}
	return nil
}

// readGconv reads a line of gconv-modules: "alias FROM// TO//" or
// "module FROM// TO// FILE COST".
func readGconv(line, dir string, modules map[string][]string, aliases map[string]string) {
	line, _, _ = strings.Cut(line, "#")
	words := strings.Fields(line)
	switch {
	case len(words) >= 3 && words[0] == "alias":
		aliases[strings.TrimSuffix(words[1], "//")] = strings.TrimSuffix(words[2], "//")
	case len(words) >= 4 && words[0] == "module":
		for _, set := range words[1:3] {
			set = strings.TrimSuffix(set, "//")
			modules[set] = append(modules[set], path.Join(dir, strings.TrimSuffix(words[3], ".so")+".so"))
		}
	}
}
