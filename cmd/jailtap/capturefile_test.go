package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jailtap/internal/capfile"
	"jailtap/loader"
)

const countsOf4 = "4 packets captured\n4 packets received by filter\n0 packets dropped by kernel\n"

func TestPacketsOfAFileArePrinted(t *testing.T) {
	file := mixFile(t, "mix.pcapng")
	r := jailtap(t, "capture -a 10.0.0.1 -n -r "+file).mustSucceed(t)
	want := `05:06:07.123456 IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 5
05:06:09.123456 IP 10.0.0.2.4001 > 10.0.0.1.4000: Flags [S.], seq 1, ack 0, win 65535, length 0
05:06:10.123456 ARP, Request who-has 10.0.0.1 tell 10.0.0.3, length 28
05:06:14.123456 IP 10.0.0.3.4002 > 10.0.0.4.4003: UDP, length 3
`
	if r.stdout != want {
		t.Errorf("%s\nwant\n%s", r.stdout, want)
	}
	head := "reading from " + file + ", link-type EN10MB (Ethernet), snapshot length 262144 bytes\n" +
		"scope: addresses 10.0.0.1, policy full; engine vm\n"
	if r.stderr != head+countsOf4 {
		t.Errorf("%s", r.stderr)
	}
}

func TestPacketsOfAFileAreWrittenToAnother(t *testing.T) {
	for _, c := range []struct{ in, out, flags string }{
		{"mix.pcap", "out.pcapng", ""},
		{"mix.pcapng", "out.pcap", ""},
		{"mix.pcapng", "out", "--format pcap"},
		{"mix.pcapng", "out.pcap", "--format pcapng"},
	} {
		file, out := mixFile(t, c.in), filepath.Join(t.TempDir(), c.out)
		r := jailtap(t, "capture -a 10.0.0.1 -r "+file+" -w "+out+" "+c.flags+" udp or arp").mustSucceed(t)
		if r.stdout != "" {
			t.Errorf("%q on stdout", r.stdout)
		}
		packets := packetsIn(t, out)
		if len(packets) != 3 {
			t.Fatalf("%+v: %d packets", c, len(packets))
		}
		for i, n := range []int{0, 3, 7} {
			if p := packets[i]; string(p.Data) != string(mix()[n]) || !p.Time.Equal(epoch.Add(time.Duration(n)*time.Second)) {
				t.Errorf("%+v: packet %d: %v %x", c, i, p.Time, p.Data)
			}
		}
		iface := packets[0].Interface
		if strings.Contains(c.flags+c.out, "pcapng") && (iface.Filter != "udp or arp" || iface.Description != "scope: addresses 10.0.0.1, policy full") {
			t.Errorf("%+v: interface %+v", c, iface)
		}
	}
}

func TestAFileMayComeAndGoThroughPipes(t *testing.T) {
	file, err := os.ReadFile(mixFile(t, "mix.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	written := jailtapWith(t, string(file), "capture -a 10.0.0.1 -r - -w - -c 2").mustSucceed(t)
	if !strings.Contains(written.stderr, "reading from standard input") || !strings.Contains(written.stderr, "2 packets captured") {
		t.Errorf("%s", written.stderr)
	}
	read := jailtapWith(t, written.stdout, "capture -a 10.0.0.1 -q -r -").mustSucceed(t)
	if want := "05:06:07.123456 IP 10.0.0.1.4000 > 10.0.0.2.4001: UDP, length 5\n" +
		"05:06:09.123456 IP 10.0.0.2.4001 > 10.0.0.1.4000: tcp 0\n"; read.stdout != want {
		t.Errorf("%s", read.stdout)
	}
}

func TestASnaplenCutsPackets(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.pcapng")
	jailtap(t, "capture -a 10.0.0.1 -s 20 -w "+out+" -r "+mixFile(t, "mix.pcap")).mustSucceed(t)
	for _, p := range packetsIn(t, out) {
		if len(p.Data) != 20 || p.Len < 42 || p.Interface.SnapLen != 20 {
			t.Errorf("%d of %d bytes, snaplen %d", len(p.Data), p.Len, p.Interface.SnapLen)
		}
	}
}

func TestStatsAreJSONWithTheseKeys(t *testing.T) {
	name := filepath.Join(t.TempDir(), "stats")
	jailtap(t, "capture -a 10.0.0.1 --stats "+name+" -r "+mixFile(t, "mix.pcap")+" udp").mustSucceed(t)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"received":2,"captured":2,"dropped":0,"engine":"vm","seen":8,"in_scope":4,"matched":2}` + "\n"; string(text) != want {
		t.Errorf("%s want %s", text, want)
	}
	var c counts
	r := jailtap(t, "capture -a 10.0.0.1 --stats - -r "+mixFile(t, "mix.pcap")+" icmp").mustSucceed(t)
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil || c.Captured != 0 || *c.InScope != 4 {
		t.Errorf("%v %+v", err, c)
	}
}

func TestWithoutAScopeEverythingIsRead(t *testing.T) {
	r := jailtap(t, "capture --no-scope -r "+mixFile(t, "mix.pcap")).mustSucceed(t)
	if n := strings.Count(r.stdout, "\n"); n != 8 {
		t.Errorf("%d packets", n)
	}
}

func TestProgramsAreAppliedToFiles(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("1\n6 0 0 30\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.pcap")
	jailtap(t, "capture -a 10.0.0.1 --program "+program+" -w "+out+" -r "+mixFile(t, "mix.pcap")).mustSucceed(t)
	if packets := packetsIn(t, out); len(packets) != 4 || len(packets[0].Data) != 30 {
		t.Errorf("%d packets", len(packets))
	}
}

// severalInterfaces is a pcapng file with an Ethernet and a raw IP packet.
func severalInterfaces(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "several.pcapng")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := capfile.NewWriter(file, name, capfile.PcapNG, capfile.Section{}, capfile.Interface{LinkType: 1})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := w.AddInterface(capfile.Interface{LinkType: 101, Name: "tun0"})
	frame := mix()[0]
	whole, inner := loader.Packet{Time: epoch, Data: frame, Len: len(frame)}, loader.Packet{Time: epoch, Data: frame[14:], Len: len(frame) - 14}
	for _, e := range []error{err, w.Write(0, whole), w.Write(raw, inner), w.Flush()} {
		if e != nil {
			t.Fatal(e)
		}
	}
	return name
}

func TestEachInterfaceOfAFileHasItsOwnProgram(t *testing.T) {
	file, dir := severalInterfaces(t), t.TempDir()
	jailtap(t, "capture -a 10.0.0.1 -r "+file+" -w "+dir+"/out.pcapng udp").mustSucceed(t)
	packets := packetsIn(t, dir+"/out.pcapng")
	if len(packets) != 2 || packets[1].Interface.LinkType != 101 || packets[1].Interface.Name != "tun0" {
		t.Errorf("%+v", packets)
	}
	r := jailtap(t, "capture -a 10.0.0.1 -r "+file+" -w "+dir+"/out.pcap udp")
	if r.status != 1 || !strings.Contains(r.stderr, "holds packets of one interface; use pcapng") {
		t.Errorf("%d %s", r.status, r.stderr)
	}
}
