package world

import (
	"embed"
	"fmt"
	"path"
	"strings"
)

//go:embed profiles/*.yaml
var profiles embed.FS

// Builtin is a profile that comes with the package.
func Builtin(name string) (Profile, error) {
	f, err := profiles.Open("profiles/" + path.Base(name) + ".yaml")
	if err != nil {
		return Profile{}, fmt.Errorf("unknown profile %q: built in are %s", name, strings.Join(BuiltinNames(), ", "))
	}
	defer f.Close()
	return ReadProfile(f)
}

// BuiltinNames are the names of the profiles that come with the package.
func BuiltinNames() []string {
	var names []string
	entries, _ := profiles.ReadDir("profiles") // of the program itself
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}
