package nsjail

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// parseJLS reads one line of `jls -n`: NAME=VALUE separated by blanks. Values
// with blanks are not for it; an empty one may have quotes (jls -q).
func parseJLS(line string) (map[string]string, error) {
	params := make(map[string]string)
	for field := range strings.FieldsSeq(line) {
		name, value, ok := strings.Cut(field, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("jls printed %q where NAME=VALUE was wanted", field)
		}
		params[name] = strings.Trim(value, `"`)
	}
	return params, nil
}

// jailAddresses reads the addresses in what `jls -n ip4.addr ip6.addr` printed.
func jailAddresses(line string) ([]netip.Prefix, error) {
	params, err := parseJLS(line)
	if err != nil {
		return nil, err
	}
	var list []netip.Prefix
	for _, name := range []string{"ip4.addr", "ip6.addr"} {
		value, ok := params[name]
		if !ok {
			return nil, fmt.Errorf("jls printed no %s: %q", name, line)
		}
		for text := range strings.SplitSeq(value, ",") {
			if text == "" || text == "-" { // none: jls without -n says "-"
				continue
			}
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("jls printed %s=%s: %w", name, value, err)
			}
			if addr = addr.Unmap().WithZone(""); !addr.IsLoopback() {
				list = append(list, netip.PrefixFrom(addr, addr.BitLen()))
			}
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list), nil
}
