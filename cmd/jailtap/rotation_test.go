package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"jailtap/internal/capfile"
	"jailtap/internal/testutil"
	"jailtap/loader"
)

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFilesByTimeAreCalledAfterIt(t *testing.T) {
	dir := t.TempDir()
	r := jailtap(t, "capture -a 10.0.0.1 -G 2 -w "+dir+"/%Y%m%d-%H%M%S.pcap -r "+mixFile(t, "mix.pcap")).mustSucceed(t)
	want := []string{"20260304-050607.pcap", "20260304-050609.pcap", "20260304-050614.pcap"}
	if names := filesIn(t, dir); !slices.Equal(names, want) {
		t.Errorf("%v, want %v; %s", names, want, r.stderr)
	}
	if n := len(packetsIn(t, dir+"/20260304-050609.pcap")); n != 2 {
		t.Errorf("%d packets in the second file", n)
	}
}

func TestTheNumberOfFilesByTimeIsLimited(t *testing.T) {
	dir := t.TempDir()
	r := jailtap(t, "capture -a 10.0.0.1 -G 2 -W 2 -w "+dir+"/%S%% -r "+mixFile(t, "mix.pcap")).mustSucceed(t)
	if names := filesIn(t, dir); !slices.Equal(names, []string{"07%", "09%"}) || !strings.Contains(r.stderr, "3 packets captured") {
		t.Errorf("%v; %s", names, r.stderr)
	}
}

func TestANameWithoutATimeIsWarnedAbout(t *testing.T) {
	r := jailtap(t, "capture -a 10.0.0.1 -G 2 -w "+t.TempDir()+"/f -r "+mixFile(t, "mix.pcap")).mustSucceed(t)
	if !strings.Contains(r.stderr, "does not change with time") {
		t.Error(r.stderr)
	}
}

func TestAnUnknownConversionIsRefused(t *testing.T) {
	for name, want := range map[string]string{"%Q": "%Q is not known", "a%": "ends with %"} {
		if _, err := strftime(name, epoch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// bigFile has packets of 1 MB together, and more.
func bigFile(t *testing.T, packets int) string {
	name := t.TempDir() + "/big.pcap"
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := capfile.NewWriter(file, name, capfile.Pcap, capfile.Section{}, capfile.Interface{LinkType: 1, SnapLen: 262144})
	if err != nil {
		t.Fatal(err)
	}
	frame := testutil.UDP4(web, db, make([]byte, 60000))
	for i := range packets {
		if err := w.Write(0, loader.Packet{Time: epoch.Add(time.Duration(i) * time.Millisecond), Data: frame, Len: len(frame)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFilesBySizeAreTcpdumps: the same names, with the same packets.
func TestFilesBySizeAreTcpdumps(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		testutil.Skip(t, "tcpdump is not there")
	}
	big := bigFile(t, 100)
	for _, flags := range []string{"-C 1", "-C 1 -W 3", "-C 2 -W 12", "-C 1 -W 2 -G 1000"} {
		ours, theirs := t.TempDir(), t.TempDir()
		jailtap(t, "capture -a 10.0.0.1 "+flags+" -r "+big+" -w "+ours+"/f.pcap").mustSucceed(t)
		args := append(strings.Fields(flags), "-Z", "root", "-r", big, "-w", theirs+"/f.pcap")
		if os.Geteuid() != 0 {
			args = append(strings.Fields(flags), "-r", big, "-w", theirs+"/f.pcap")
		}
		if out, err := exec.Command(tcpdump, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		names := filesIn(t, ours)
		if want := filesIn(t, theirs); !slices.Equal(names, want) {
			t.Errorf("%s: files %v, want %v", flags, names, want)
			continue
		}
		for _, name := range names {
			if got, want := len(packetsIn(t, ours+"/"+name)), len(packetsIn(t, theirs+"/"+name)); got != want {
				t.Errorf("%s: %s has %d packets, want %d", flags, name, got, want)
			}
		}
	}
}
