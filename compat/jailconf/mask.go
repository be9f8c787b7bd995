package jailconf

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// parseMask reads a mask as a number of bits, as dotted quad, or in
// hexadecimal (ifconfig(8): 0xffffff00), and returns the bits.
func parseMask(text string, of netip.Addr) (int, error) {
	if strings.HasPrefix(text, "0x") || strings.Contains(text, ".") {
		return parseNetmask(text, of)
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || int(n) > of.BitLen() {
		return 0, fmt.Errorf("want 0 to %d bits", of.BitLen())
	}
	return int(n), nil
}

func parseNetmask(text string, of netip.Addr) (int, error) {
	if !of.Is4() {
		return 0, fmt.Errorf("want 0 to %d bits", of.BitLen())
	}
	var mask uint32
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 32)
		if err != nil {
			return 0, fmt.Errorf("want up to 8 hexadecimal digits")
		}
		mask = uint32(n)
	} else {
		quad, err := netip.ParseAddr(text)
		if err != nil || !quad.Is4() {
			return 0, fmt.Errorf("want bits or a dotted quad")
		}
		as4 := quad.As4()
		mask = binary.BigEndian.Uint32(as4[:])
	}
	ones := bits.LeadingZeros32(^mask)
	if mask<<ones != 0 {
		return 0, fmt.Errorf("its ones are not together at its left")
	}
	return ones, nil
}
