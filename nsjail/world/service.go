package world

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// A service is something that /etc/rc starts.
type service struct {
	needs Profile
	texts map[string]string // configuration, by path in the world
	dirs  []string
	start string // in sh
}

// sshd lets in by key alone. It makes its host key at the first start: Ed25519
// takes 32 bytes of getrandom(2), which have no need to wait for entropy where
// others have none to give; RSA keys took minutes.
var services = map[string]service{
	"sshd": {
		needs: Profile{
			Bins:  []string{"/usr/sbin/sshd", "ssh-keygen", "sh", "mkdir"},
			Users: []User{{Name: "sshd", Home: "/run/sshd", Shell: "/usr/sbin/nologin"}},
			Files: []string{"/usr/lib/openssh/sftp-server?", "/usr/libexec/openssh/sftp-server?", "/etc/ssh/moduli?",
				"/usr/libexec/openssh/sshd-session?", "/usr/lib/openssh/sshd-session?", "/usr/lib/openssh/sshd-auth?"},
		},
		dirs: []string{"run/sshd", "etc/ssh"},
		texts: map[string]string{"etc/ssh/sshd_config": `HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
X11Forwarding no
PrintMotd no
Subsystem sftp internal-sftp
`},
		start: `mkdir -p /run/sshd
[ -s /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key
/usr/sbin/sshd
`,
	},
}

// withServices is the profile with what its services need.
func (p Profile) withServices() (Profile, error) {
	slices.Sort(p.Services)
	p.Services = slices.Compact(p.Services)
	for _, name := range p.Services {
		s, ok := services[name]
		if !ok {
			return p, fmt.Errorf("unknown service %q: known are %s", name, strings.Join(slices.Sorted(maps.Keys(services)), ", "))
		}
		p = p.With(s.needs)
	}
	return p, nil
}

// services puts their configuration, and /etc/rc, which is what a jail's
// exec.start runs (jail(8)) and what /init runs.
func (c *collector) services() error {
	rc := "#!/bin/sh\nPATH=" + strings.Join(searchPath, ":") + "\nexport PATH\n"
	for _, name := range c.p.Services {
		s := services[name]
		for _, dir := range s.dirs {
			c.own(&Entry{Path: dir, Mode: fs.ModeDir | 0o755})
		}
		for _, file := range slices.Sorted(maps.Keys(s.texts)) {
			c.text(file, 0o644, s.texts[file])
		}
		rc += s.start
	}
	if len(c.p.Services) > 0 {
		c.text("etc/rc", 0o755, rc)
	}
	return nil
}
