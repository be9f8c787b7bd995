//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/bpf/ebpf"
	"jailtap/bpf/pcapexpr"
	"jailtap/internal/testutil"
)

// TestMain has this program be what others are started to be.
func TestMain(m *testing.M) {
	if is, err := isAnother(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// testLab is a lab until the test ends.
func testLab(t *testing.T) lab {
	t.Helper()
	testutil.NeedRoot(t)
	l, err := newLab()
	t.Cleanup(l.remove)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// hasLines checks that a page's tables have lines that begin so.
func hasLines(t *testing.T, page string, beginnings ...string) {
	t.Helper()
	for _, want := range beginnings {
		if !strings.Contains(page, "\n| "+want+" | ") {
			t.Errorf("no line %q in\n%s", want, page)
		}
	}
}

func TestMeasuredFiltersRejectEverythingInAsManyInstructions(t *testing.T) {
	p, err := pcapexpr.Compile(userExpr, bpf.Ethernet, 0)
	if err != nil {
		t.Fatal(err)
	}
	q := rejecting(p)
	for _, kind := range (match{}).kinds() {
		packet := bpf.Packet{Data: kind.frame, WireLen: uint32(len(kind.frame))}
		_, want := bpf.VM{}.Count(p, packet)
		if verdict, executed := (bpf.VM{}).Count(q, packet); verdict != 0 || executed != want {
			t.Errorf("%s: verdict %d after %d instructions, want 0 after %d", kind.name, verdict, executed, want)
		}
	}
}

func TestEachKindOfFrameIsWhatItIsCalled(t *testing.T) {
	for _, m := range matches {
		scope := m.scope()
		if n := len(scope.Addrs); n != m.addrs {
			t.Errorf("%d addresses, want %d", n, m.addrs)
		}
		for i, want := range []bool{true, false, false} {
			if kind := m.kinds()[i]; scope.Match(bpf.Ethernet, kind.frame) != want {
				t.Errorf("%+v, %s: want Match = %v", m, kind.name, want)
			}
		}
	}
}

// TestMeasuredMapsRejectWhatTheyHaveCounted: so that it is known that all of the program has run.
func TestMeasuredMapsRejectWhatTheyHaveCounted(t *testing.T) {
	lanes := testLanes(t)
	for _, m := range []match{{addrs: 10}, {ipv6: true, addrs: 10}} {
		for i, want := range []ebpf.Counters{{Seen: frames, InScope: frames, Matched: frames}, {Seen: frames}, {Seen: frames}} {
			var counters *cilium.Map
			c, err := withMaps("", m.scope(), mustCompile(t, userExpr))
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			if counters, err = attachMaps(lanes[0].filters[0], c.spec, c.maps); err != nil {
				t.Fatal(err)
			}
			defer counters.Close()
			if err := lanes[0].ns.Do(func() error { _, err := lanes[0].turn(m.kinds()[i].frame); return err }); err != nil {
				t.Fatal(err)
			}
			var each []ebpf.Counters
			if err := counters.Lookup(uint32(0), &each); err != nil {
				t.Fatal(err)
			}
			var got ebpf.Counters
			for _, c := range each {
				got.Seen, got.InScope, got.Matched = got.Seen+c.Seen, got.InScope+c.InScope, got.Matched+c.Matched
			}
			if got != want {
				t.Errorf("%+v, %s: counted %+v, want %+v", m, m.kinds()[i].name, got, want)
			}
			if n, _, _ := unix.Recvfrom(lanes[0].filters[0], make([]byte, 100), unix.MSG_DONTWAIT); n > 0 {
				t.Errorf("%+v, %s: a frame of %d bytes came through", m, m.kinds()[i].name, n)
			}
		}
	}
}

// TestFramesOutOfScopeScatter: and are out of scope wherever they come from.
func TestFramesOutOfScopeScatter(t *testing.T) {
	lanes := testLanes(t)
	fd := lanes[0].filters[0]
	if err := attachFilter(fd, bpf.Program{{Op: retK, K: bpf.KeepAll}}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []match{{addrs: 1000}, {ipv6: true, addrs: 1000}} {
		scope, frame := m.scope(), m.kinds()[1].frame
		if err := lanes[0].ns.Do(func() error { _, err := lanes[0].turn(frame); return err }); err != nil {
			t.Fatal(err)
		}
		seen, read := map[string]bool{}, 0 // as many as the socket has room for
		for buf := make([]byte, 100); ; {
			n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			read++
			if seen[string(buf[:n])] = true; n != len(frame) || scope.Match(bpf.Ethernet, buf[:n]) {
				t.Errorf("%+v: % x is in scope, or not of %d bytes", m, buf[:n], len(frame))
			}
		}
		if read < 10 || len(seen) < read-1 {
			t.Errorf("%+v: %d different frames of %d", m, len(seen), read)
		}
	}
}

// testLanes are lanes until the test ends.
func testLanes(t *testing.T) lanes {
	t.Helper()
	lanes, err := newLanes(testLab(t))
	t.Cleanup(func() { lanes.close() })
	if err != nil {
		t.Fatal(err)
	}
	return lanes
}

func mustCompile(t *testing.T, expr string) bpf.Program {
	t.Helper()
	p, err := pcapexpr.Compile(expr, bpf.Ethernet, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTheBenchmarkOfFiltersRuns: and says of each what it is, and what it is not.
func TestTheBenchmarkOfFiltersRuns(t *testing.T) {
	l := testLab(t)
	var page bytes.Buffer
	if err := benchFilters(&page, l, []match{{false, 1, 1}, {false, 5000, 1}, {true, 500, 1}}, 1); err != nil {
		t.Fatal(err)
	}
	hasLines(t, page.String(), "1 | no scope |  | 20", "1 | libpcap |  | 32", "1 | engine cbpf | auto",
		"5000 | engine cbpf |  | – | too long | too long | too long | –", "5000 | engine ebpf | auto", "500 | libpcap |  | 9004 | too long | too long | too long | –")
}

// TestTheBenchmarkOfCapturesRuns: and as many frames come in as it says.
func TestTheBenchmarkOfCapturesRuns(t *testing.T) {
	testutil.NeedRoot(t)
	r := tcpdumpRecorder()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		testutil.Skip(t, "tcpdump is not there")
	}
	l := testLab(t)
	b, err := newCaptureBench(l)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	for _, load := range loads {
		if _, captured, err := b.run(r, load, 1000); err != nil || captured != 1000 {
			t.Errorf("%d bytes: %d frames captured, %v", load.length, captured, err)
		}
	}
}

// TestTheBenchmarkOfWorldsRuns: and each way makes a root with a shell.
func TestTheBenchmarkOfWorldsRuns(t *testing.T) {
	testutil.NeedRoot(t)
	var page bytes.Buffer
	if err := benchWorlds(&page, jailtapProgram(t), 1); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(page.String(), "\n| "); lines != 8 || !strings.Contains(page.String(), "| cp+ldd script | ") {
		t.Errorf("%d lines in\n%s", lines, page.String())
	}
}

func TestTheBenchmarkOfJailsRuns(t *testing.T) {
	testutil.NeedRoot(t)
	var page bytes.Buffer
	if err := benchJails(&page, jailtapProgram(t), 1); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(page.String(), "\n| "); lines != 10 || !strings.Contains(page.String(), "| `jailtap jail -c` | ") {
		t.Errorf("%d lines in\n%s", lines, page.String())
	}
}

// jailtapProgram is the program, built.
func jailtapProgram(t *testing.T) string {
	t.Helper()
	jailtap := filepath.Join(t.TempDir(), "jailtap")
	if out, err := exec.Command("go", "build", "-o", jailtap, "jailtap/cmd/jailtap").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return jailtap
}

// TestTheBenchmarkOfCrowdsRuns: and has a line for each design.
func TestTheBenchmarkOfCrowdsRuns(t *testing.T) {
	l := testLab(t)
	var page bytes.Buffer
	if err := benchCrowds(&page, l, []int{1, 3}, 1); err != nil {
		t.Fatal(err)
	}
	hasLines(t, page.String(), "nobody | 0", "own sockets | 3", "as is | 3", "hub | 3", "fan-out | 3", "tcx and taps | 3")
}

const samplePage = `# Benchmarks

## Filters

| addresses | filter | instructions | in scope | out of scope |
| ---: | --- | ---: | ---: | ---: |
| 1 | jailtap | 33 | 26.4 (14) | 8.8 (9) |
| 1 | libpcap | 32 | 26.7 (12) | 13.2 (11) |
| 10 | libpcap | 50 | 28.7 (17) | 16.2 [15.0, 17.1] (29) |
| 1000 | jailtap | 33 | 26.4 (14) | 30.5 (9) |
| 1000 | libpcap | | | |

## Capture

64 bytes, 1000 frames at 1000/s:

| program | CPU ns a packet | lost |
| --- | ---: | ---: |
| ` + "`tcpdump`" + ` | 145 | 0 |
| ` + "`jailtap capture`" + ` | 103 | 0 |

1500 bytes, 1000 frames at 1000/s:

| program | CPU ns a packet | lost |
| --- | ---: | ---: |
| ` + "`tcpdump`" + ` | 1744 | 0 |
| ` + "`jailtap capture`" + ` | 1430 | 0 |
`

func TestFiguresAreDrawnOfThePagesTables(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bench")
	page, err := withFigures(samplePage, dir)
	if err != nil {
		t.Fatal(err)
	}
	for file, names := range map[string][]string{"filters.svg": {"jailtap", "libpcap", "1000"}, "capture.svg": {"tcpdump", "jailtap capture", "64 bytes", "1500 bytes"}} {
		if !strings.Contains(page, "](bench/"+file+")\n") {
			t.Errorf("the page does not refer to %s:\n%s", file, page)
		}
		svg, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !strings.Contains(string(svg), ">"+name+"<") {
				t.Errorf("%s does not name %q", file, name)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "crowds.svg")); err == nil {
		t.Error("a figure of what was not measured")
	}
	if _, err := withFigures(strings.ReplaceAll(samplePage, "out of scope", "another"), dir); err == nil {
		t.Error("a figure of a column that is not there")
	}
}

func TestTablesAreReadAsTheyArePrinted(t *testing.T) {
	tables := tablesOf(samplePage)
	if len(tables) != 3 || tables[2].caption != "1500 bytes, 1000 frames at 1000/s:" || len(tables[0].rows) != 5 {
		t.Fatalf("%+v", tables)
	}
	if v, err := number(tables[0].rows[1][4]); err != nil || v != 13.2 {
		t.Errorf("%v, %v", v, err)
	}
}

// TestTheBenchmarkOfSetUpRuns: and has a line for each way to a capture, and each program.
func TestTheBenchmarkOfSetUpRuns(t *testing.T) {
	l := testLab(t)
	var page bytes.Buffer
	if err := benchSetup(&page, l, jailtapProgram(t), 1, 1, 1); err != nil {
		t.Fatal(err)
	}
	hasLines(t, page.String(), "after 50 ms | bare calls", "after 1 ms | `loader.Open`, engine ebpf", "after 1 ms | `jailtap serve`", "after 1 ms | a ready ring, handed over",
		"`tcpdump`", "`jailtap capture --format pcap --hub always`")
}
