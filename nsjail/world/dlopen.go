package world

import (
	"path"
	"strings"
)

// opened is what libraries open while they run, which no ELF file tells. DIR is
// the folder that the library is in. What is not on the system is left out.
var opened = []struct {
	library string // the beginning of its name
	files   []string
}{
	// pthread_exit(3) and backtrace(3); NSS modules of the nsswitch.conf that the
	// skeleton has, for glibc before 2.34, which has them inside since.
	{"libc.so.6", []string{"DIR/libgcc_s.so.1", "DIR/libnss_files.so.2", "DIR/libnss_dns.so.2"}},
	{"libcrypto.so.3", []string{"DIR/ossl-modules/*.so", "/etc/ssl/openssl.cnf", "/usr/lib/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"}},
	{"libcrypto.so.1.1", []string{"DIR/engines-1.1/*.so", "/etc/ssl/openssl.cnf", "/usr/lib/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"}},
	{"libssl.so.", certificates},
	{"libgnutls.so.", certificates},
	{"libkrb5.so.", []string{"/etc/krb5.conf"}},
	{"libmagic.so.", []string{"/usr/lib/file/magic.mgc", "/usr/share/misc/magic.mgc", "/etc/magic"}},
	{"libxtables.so.", []string{"DIR/xtables/*.so"}},
	{"libtinfo.so.", terminals()},
	{"libtinfow.so.", terminals()},
	{"libncurses.so.", terminals()},
	{"libncursesw.so.", terminals()},
}

var certificates = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"}

// terminals are the descriptions of what people sit at (terminfo(5)), in the
// folders of Debian, of the administrator, and of everybody else.
func terminals() (patterns []string) {
	for _, dir := range []string{"/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"} {
		for _, name := range []string{
			"ansi", "dumb", "linux", "rxvt", "screen", "screen-256color", "tmux", "tmux-256color",
			"vt100", "vt102", "vt220", "xterm", "xterm-256color", "xterm-color",
		} {
			patterns = append(patterns, path.Join(dir, name[:1], name))
		}
	}
	return patterns
}

// bringOpened brings what a library opens.
func (c *collector) bringOpened(o *loaded) error {
	for _, known := range opened {
		if !strings.HasPrefix(path.Base(o.path), known.library) {
			continue
		}
		for _, file := range known.files {
			if rest, isBeside := strings.CutPrefix(file, "DIR/"); isBeside {
				file = path.Join(globQuote.Replace(path.Dir(o.path)), rest)
			}
			if err := c.bringIfThere(file); err != nil {
				return err
			}
		}
	}
	return nil
}
