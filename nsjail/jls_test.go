package nsjail

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestAddressesOfAJailAreReadFromJLS(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"ip4.addr=10.0.0.5 ip6.addr=\n", []string{"10.0.0.5/32"}},
		{"ip4.addr=10.0.0.6,10.0.0.5,10.0.0.5 ip6.addr=fd00::5,fe80::1", []string{"10.0.0.5/32", "10.0.0.6/32", "fd00::5/128", "fe80::1/128"}},
		{"ip4.addr=127.0.0.1,127.0.1.7 ip6.addr=::1,fe80::2%em0", []string{"fe80::2/128"}},
		{`ip4.addr="" ip6.addr=""`, nil},
		{"ip6.addr=- ip4.addr=-", nil}, // as a jail with vnet or ip4=inherit
	} {
		got, err := jailAddresses(c.line)
		if err != nil {
			t.Errorf("%q: %v", c.line, err)
		}
		text := make([]string, len(got))
		for i, p := range got {
			text[i] = p.String()
		}
		if !slices.Equal(text, c.want) {
			t.Errorf("%q: %v, want %v", c.line, text, c.want)
		}
	}
}

func TestWhatJLSDoesNotPrintIsAnError(t *testing.T) {
	for line, want := range map[string]string{
		"":                                     "no ip4.addr",
		"ip4.addr=10.0.0.5":                    "no ip6.addr",
		"10.0.0.5 -":                           "NAME=VALUE",
		"ip4.addr=10.0.0.500 ip6.addr=":        "ip4.addr=10.0.0.500",
		"ip4.addr=10.0.0.5/24 ip6.addr=":       "10.0.0.5/24",
		"ip4.addr=10.0.0.5, 10.0.0.6 ip6.addr": "NAME=VALUE",
	} {
		if got, err := jailAddresses(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want an error with %q", line, got, err, want)
		}
	}
}

func FuzzJailAddresses(f *testing.F) {
	f.Add("ip4.addr=10.0.0.6,10.0.0.5 ip6.addr=fd00::5,fe80::1%em0")
	f.Fuzz(func(t *testing.T, line string) {
		list, err := jailAddresses(line)
		if err != nil {
			return
		}
		if !slices.IsSortedFunc(list, netip.Prefix.Compare) || slices.ContainsFunc(list, func(p netip.Prefix) bool { return !p.IsSingleIP() }) {
			t.Errorf("%q: %v", line, list)
		}
	})
}
