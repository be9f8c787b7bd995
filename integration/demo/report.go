//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// A result is a capture and what was found of it. The comparison of the
// reference is empty.
type result struct {
	capture *capture
	frames  []string
	comparison
}

// report prints the table.
func report(w io.Writer, results []result, dir string) {
	wire := results[0]
	fmt.Fprintf(w, "frames on the wire: %d (%s)\n\n", len(wire.frames), kinds(wire.frames))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "jail\tengine\town on the wire\tcaptured\tforeign frames seen\tmissed\tdropped\t")
	for _, r := range results {
		dropped := r.capture.stats.Dropped
		if r.capture.host == nil {
			fmt.Fprintf(t, "(unscoped)\t%s\t-\t%d\t-\t-\t%d\t\n", r.capture.engine, len(r.frames), dropped)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n", r.capture.host.name, r.capture.engine, r.own, len(r.frames),
			r.foreign, r.missed, dropped)
	}
	t.Flush()
	fmt.Fprintf(w, "\nThe captures are in %s; open them with Wireshark, or tcpdump -r.\n", dir)
}

// kinds counts frames by EtherType.
func kinds(frames []string) string {
	var ipv4, ipv6, arp, tagged int
	for _, f := range frames {
		switch binary.BigEndian.Uint16([]byte(f[12:14])) {
		case 0x0800:
			ipv4++
		case 0x86dd:
			ipv6++
		case 0x0806:
			arp++
		case 0x8100, 0x88a8:
			tagged++
		}
	}
	return fmt.Sprintf("%d IPv4, %d IPv6, %d ARP, %d VLAN-tagged", ipv4, ipv6, arp, tagged)
}

// failure is what is wrong with the results, if anything.
func failure(results []result) error {
	var errs []error
	for _, r := range results {
		if r.capture.stats.Dropped > 0 {
			errs = append(errs, fmt.Errorf("%v dropped %d frames", r.capture, r.capture.stats.Dropped))
		}
		if r.capture.host == nil {
			continue
		}
		if r.own == 0 {
			errs = append(errs, fmt.Errorf("%v: nothing of its own was on the wire", r.capture))
		}
		if !r.exact() {
			errs = append(errs, fmt.Errorf("%v: %d foreign frames, %d missed, %d more often than on the wire",
				r.capture, r.foreign, r.missed, r.extra))
		}
	}
	return errors.Join(errs...)
}
