package jailconf

import (
	"net/netip"
	"strings"
)

// An Address is a value of ip4.addr or ip6.addr: INTERFACE|ADDRESS/MASK and
// then words for ifconfig(8).
type Address struct {
	Interface string       // where it is added; the parameter "interface" if it names none; may be empty
	Prefix    netip.Prefix // the address itself with its mask: not the network; /32 or /128 if there is none
	Options   []string     // the words behind, such as "vhid", "1"
	Pos       Position
}

// Addresses are those of ip4.addr, then those of ip6.addr. The first of each
// family is the one that outgoing connections come from. A value may be several
// addresses with commas between them, as on a command line.
func (j Jail) Addresses() ([]Address, error) {
	var list []Address
	var errs Errors
	fallback, _ := j.String("interface")
	for _, name := range []string{"ip4.addr", "ip6.addr"} {
		p, _ := j.Get(name)
		for value := range strings.SplitSeq(strings.Join(j.Strings(name), ","), ",") {
			if value = strings.TrimSpace(value); value == "" {
				continue
			}
			a, err := parseAddress(p, value)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if a.Interface == "" {
				a.Interface = fallback
			}
			list = append(list, a)
		}
	}
	if errs != nil {
		return nil, errs
	}
	return list, nil
}

func parseAddress(p Param, value string) (Address, *Error) {
	a := Address{Pos: p.Pos}
	rest := value
	if iface, after, ok := strings.Cut(value, "|"); ok {
		a.Interface, rest = strings.TrimSpace(iface), after
		if a.Interface == "" || strings.ContainsAny(a.Interface, "/ \t") || len(a.Interface) > 15 {
			return a, p.errorf(value, "%s: bad interface %q in %q: want INTERFACE|ADDRESS/MASK", p.Name, a.Interface, value)
		}
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return a, p.errorf(value, "%s: %q has no address: want INTERFACE|ADDRESS/MASK", p.Name, value)
	}
	text, mask, hasMask := strings.Cut(fields[0], "/")
	fields = fields[1:]
	if !hasMask && len(fields) > 1 && (fields[0] == "netmask" || fields[0] == "prefixlen") {
		mask, hasMask, fields = fields[1], true, fields[2:]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Is4() != (p.Name == "ip4.addr") || addr.Zone() != "" || addr.Is4In6() {
		return a, p.errorf(value, "%s: bad address %q in %q: want INTERFACE|ADDRESS/MASK", p.Name, text, value)
	}
	bits := addr.BitLen()
	if hasMask {
		if bits, err = parseMask(mask, addr); err != nil {
			return a, p.errorf(value, "%s: bad mask %q in %q: %v", p.Name, mask, value, err)
		}
	}
	a.Prefix, a.Options = netip.PrefixFrom(addr, bits), fields
	if len(fields) == 0 {
		a.Options = nil
	}
	return a, nil
}
