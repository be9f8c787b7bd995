package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jailtap/internal/testutil"
	"jailtap/loader"
)

// kills is how often the daemon is killed: JAILTAP_KILLS, or 10.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("JAILTAP_KILLS")
	if text == "" {
		return 10
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("JAILTAP_KILLS=%q: want a number", text)
	}
	return n
}

// While the daemon is killed time and again, clients ask for sockets, read what
// they have, and try to send.
func TestADaemonThatIsKilledLeavesCaptivesScopedAndMuteAndTheNextTakesThemUp(t *testing.T) {
	here, there := lab(t)
	here.AddAddr(t, "tap", "10.0.0.1/24")
	d := newService(t)
	clients := []*client{startClient(t, here, d.socket), startClient(t, here, d.socket)}
	sent := hearCaptives(t, there)
	flood(t, there, testutil.UDP4(db, web, ownFrame), testutil.UDP4(other, noisy, foreignFrame))
	for _, c := range clients {
		c.tell("storm")
	}
	adopted := 0
	for n, most := 0, kills(t); n < most || adopted == 0 && n < 10*most; n++ { // a slow machine may need more, and more time
		d.start(t, "")
		time.Sleep(time.Duration(rand.IntN(150*(1+n/most))) * time.Millisecond)
		d.end(syscall.SIGKILL)
		adopted += strings.Count(d.stderr.String(), "captive adopted")
	}
	held := 0
	for _, c := range clients {
		c.tell("calm")
		var n, asked, refused, own, foreign, added int
		answer := c.tell("count")
		if _, err := fmt.Sscanf(answer, "held %d, asked %d, refused %d, own %d, foreign %d, added %d.", &n, &asked, &refused, &own, &foreign, &added); err != nil {
			t.Fatalf("%q: %v", answer, err)
		}
		if foreign > 0 || own == 0 || n == 0 || asked == refused {
			t.Errorf("%s; stderr:\n%s", answer, c.stderr.String())
		}
		held += n
	}
	if adopted == 0 {
		t.Error("no daemon took up what the one before had left")
	}

	// The last one has them all, and keeps their scope.
	d.start(t, "")
	log := d.stderr.String()
	if n := strings.Count(log, "captive adopted") - strings.Count(log, "captive gone"); n < held || strings.Contains(log, "shut") {
		t.Errorf("%d sockets adopted of %d:\n%s", n, held, log)
	}
	there.Inject(t, "out", testutil.UDP4(noisy, db, addedFrame)) // 10.0.0.4
	for _, c := range clients {
		c.wants("count", "added 0.")
	}
	here.AddAddr(t, "tap", "10.0.0.4/24")
	d.waitFor(&d.stderr, "scope changed")
	for _, c := range clients {
		n := 0
		fmt.Sscanf(c.tell("count"), "held %d", &n)
		eventually(t, "a frame of the address that was added, on each", func() bool {
			there.Inject(t, "out", testutil.UDP4(noisy, db, addedFrame)) // again, since the flood may leave no room for one
			return strings.Contains(c.tell("count"), fmt.Sprintf("added %d.", n))
		})
		c.tell("close")
	}
	eventually(t, "the end of all sockets", func() bool {
		log := d.stderr.String()
		return strings.Count(log, "captive gone") == strings.Count(log, "captive adopted")
	})
	if n := sent(); n > 0 {
		t.Errorf("captive sockets sent %d frames", n)
	}
}

// flood sends frames until the test ends.
func flood(t *testing.T, from *testutil.Namespace, frames ...[]byte) {
	t.Helper()
	var done sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	done.Go(func() {
		for ctx.Err() == nil {
			if err := from.Namespace.Inject("out", frames...); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	t.Cleanup(func() { stop(); done.Wait() })
}

// hearCaptives counts the frames from captive sockets that arrive at the other end.
func hearCaptives(t *testing.T, at *testutil.Namespace) (sent func() int) {
	t.Helper()
	tap, err := loader.Open(loader.Config{Interface: "out", Namespace: at, NoScope: true, Direction: loader.In})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n := make(chan int, 1)
	go func() {
		heard := 0
		tap.Read(ctx, func(p *loader.Packet) error {
			if bytes.Contains(p.Data, captiveFrame) {
				heard++
			}
			return nil
		})
		n <- heard
	}()
	t.Cleanup(func() { stop(); tap.Close() })
	return func() int { stop(); return <-n }
}
