package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"jailtap/bpf/pcapexpr"
)

// version is set by the linker: -X main.version=v1.2.3.
var version string

// application is the program's name and version.
func application() string {
	if version != "" {
		return "jailtap " + version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return "jailtap " + info.Main.Version
	}
	return "jailtap (devel)"
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of jailtap and of what it stands on",
		Example: "  jailtap version\n  jailtap version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			goVersion := fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if asJSON {
				return json.NewEncoder(a.stdout).Encode(map[string]string{
					"jailtap": application()[len("jailtap "):], "go": goVersion, "system": system(), "libpcap": pcapexpr.Version(),
				})
			}
			_, err := fmt.Fprintf(a.stdout, "%s\n%s\n%s\n%s\n", application(), goVersion, system(), pcapexpr.Version())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
