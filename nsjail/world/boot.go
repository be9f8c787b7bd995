package world

import "strings"

// bootProfile is what /init needs; it does without mount and setsid, but then
// there is no /proc and no job control.
var bootProfile = Profile{Bins: []string{"sh", "mount?", "setsid?", "ip?", "cat?"}}

// initScript is process 1 of a world that boots. The kernel gives it a console
// of its own (usr/default_cpio_list in its sources). It must not end.
var initScript = `#!/bin/sh
PATH=` + strings.Join(searchPath, ":") + `
HOME=/root TERM=linux
export PATH HOME TERM
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
ip link set lo up
[ -x /etc/rc ] && /etc/rc
cd /root
while :; do
	setsid -c sh -l -i 2>&1 || sh -l -i
done
`

// boot puts /init into what the kernel unpacks as its first root (initramfs).
func (c *collector) boot() error {
	if c.o.Format == Initramfs {
		c.text("init", 0o755, initScript)
	}
	return nil
}
