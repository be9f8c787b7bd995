package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jailtap/internal/capfile"
	"jailtap/internal/testutil"
	"jailtap/loader"
)

// TestMain lets the test binary be the program itself, for tests of signals
// and privileges.
func TestMain(m *testing.M) {
	if os.Getenv("JAILTAP_TEST_MAIN") == "1" {
		main()
	}
	time.Local = time.UTC
	os.Exit(m.Run())
}

type result struct {
	status         int
	stdout, stderr string
}

// jailtap runs a command line, whose words are separated by spaces.
func jailtap(t testing.TB, commandLine string) result { return jailtapWith(t, "", commandLine) }

func jailtapWith(t testing.TB, stdin, commandLine string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), strings.Fields(commandLine), strings.NewReader(stdin), &stdout, &stderr)
	return result{status, stdout.String(), stderr.String()}
}

func (r result) mustSucceed(t testing.TB) result {
	t.Helper()
	if r.status != 0 {
		t.Fatalf("exit status %d, stderr:\n%s", r.status, r.stderr)
	}
	return r
}

// mustFail checks that there is one line on stderr, which has these words.
func (r result) mustFail(t testing.TB, status int, words string) {
	t.Helper()
	if r.status != status || !strings.HasPrefix(r.stderr, "jailtap: ") || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, words) {
		t.Errorf("exit status %d, stderr %q; want %d and a line with %q", r.status, r.stderr, status, words)
	}
	if r.stdout != "" {
		t.Errorf("stdout is not empty: %q", r.stdout)
	}
}

var epoch = time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)

var (
	web   = netip.MustParseAddrPort("10.0.0.1:4000")
	db    = netip.MustParseAddrPort("10.0.0.2:4001")
	other = netip.MustParseAddrPort("10.0.0.3:4002")
	noisy = netip.MustParseAddrPort("10.0.0.4:4003")
	web6  = netip.MustParseAddrPort("[fd00::1]:4000")
	db6   = netip.MustParseAddrPort("[fd00::2]:4001")
)

// mix are frames in and out of the scope of web, one a second.
func mix() [][]byte {
	return [][]byte{
		testutil.UDP4(web, db, []byte("hello")),
		testutil.UDP4(other, noisy, []byte("foreign")),
		testutil.TCP4(db, web, testutil.SYN|testutil.ACK, nil),
		testutil.ARP(testutil.ARPRequest, other.Addr(), web.Addr(), testutil.MACOf(web.Addr())),
		testutil.ARP(testutil.ARPReply, other.Addr(), noisy.Addr(), testutil.MACOf(noisy.Addr())),
		testutil.UDP6(web6, db6, []byte("hello6")),
		testutil.Tagged(testutil.UDP4(web, db, []byte("vlan")), 0x8100, 7),
		testutil.To(testutil.UDP4(other, noisy, []byte("all")), testutil.BroadcastMAC),
	}
}

// mixFile is a capture file of them.
func mixFile(t testing.TB, name string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	iface := capfile.Interface{LinkType: 1, SnapLen: 262144, Name: "eth7"}
	w, err := capfile.NewWriter(file, name, capfile.FormatOf(name), capfile.Section{}, iface)
	if err != nil {
		t.Fatal(err)
	}
	for i, frame := range mix() {
		if err := w.Write(0, loader.Packet{Time: epoch.Add(time.Duration(i) * time.Second), Data: frame, Len: len(frame)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return name
}

// packetsIn reads a whole capture file.
func packetsIn(t testing.TB, name string) (packets []capfile.Packet) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := capfile.NewReader(file)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for {
		p, err := r.Next()
		if err != nil {
			if err.Error() != "EOF" {
				t.Fatalf("%s: %v", name, err)
			}
			return packets
		}
		p.Data = bytes.Clone(p.Data)
		packets = append(packets, p)
	}
}

// mustBeEmpty checks that nothing was left behind in a folder.
func mustBeEmpty(t testing.TB, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
