package main

import (
	"net"

	"github.com/spf13/pflag"
)

// asksBroker reports whether the broker is to open the capture: if it is named, or
// if this process may not and there is one that listens to it.
func (f *captureFlags) asksBroker(fs *pflag.FlagSet) bool {
	if f.readFile != "" || mayOpenPacketSockets() && !fs.Changed("broker") {
		return false
	}
	if fs.Changed("broker") {
		return true
	}
	conn, err := net.Dial("unixpacket", f.broker)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// checkBrokered refuses what the broker decides, or cannot do.
func (f *captureFlags) checkBrokered(fs *pflag.FlagSet, scope []string) error {
	if f.noScope {
		scope = append(scope, "--no-scope")
	}
	if len(scope) > 0 {
		return usagef("%s: the broker at %s is asked, and decides whose packets may be seen: leave it out, or run with sudo", scope[0], f.broker)
	}
	for _, flag := range []string{"in-netns", "engine", "hub"} {
		if fs.Changed(flag) {
			return usagef("--%s: the broker at %s is asked, which captures in the caller's network namespace with an engine of its own: leave it out, or run with sudo", flag, f.broker)
		}
	}
	return nil
}
