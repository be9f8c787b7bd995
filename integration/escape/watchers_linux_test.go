//go:build amd64 || arm64

package escape

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// readAll hands on what comes to a file, until the test ends.
func readAll(w *world, fd int, do func(packet []byte, from unix.Sockaddr)) {
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		buf := make([]byte, 1<<17)
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			select {
			case <-stop:
				return
			default:
			}
			unix.Poll(polled, 20)
			for {
				n, from, err := receive(fd, buf)
				if err != nil {
					break
				}
				do(buf[:n], from)
			}
		}
	})
	w.t.Cleanup(func() { close(stop); reader.Wait() })
}

// receive reads a socket or, without a sender, a file.
func receive(fd int, buf []byte) (int, unix.Sockaddr, error) {
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err == unix.ENOTSOCK {
		n, err = unix.Read(fd, buf)
	}
	return n, from, err
}

// marks counts the frames that attackers got through, by marker.
type marks struct {
	mu   sync.Mutex
	seen map[string]int
}

// markerLen is the length of a marker in bytes: markerWord and a number.
const markerLen = len(markerWord) + 16

func (m *marks) watch(w *world, fd int) {
	readAll(w, fd, func(packet []byte, _ unix.Sockaddr) {
		at := bytes.Index(packet, []byte(markerWord))
		if at < 0 || len(packet) < at+markerLen {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.seen[string(packet[at:at+markerLen])]++
	})
}

func (m *marks) count(marker string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[marker]
}

// A witness is a neighbour, who is to get all numbered frames.
type witness struct {
	name string
	fd   int

	mu      sync.Mutex
	numbers map[uint32]bool
	crafted map[uint32]int // frames of attempts, by their nonces
}

func startWitness(w *world, name string, fd int) *witness {
	wt := &witness{name: name, fd: fd, numbers: map[uint32]bool{}, crafted: map[uint32]int{}}
	readAll(w, fd, wt.see)
	return wt
}

func (wt *witness) see(frame []byte, _ unix.Sockaddr) {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	if id, ok := craftedID(frame); ok {
		wt.crafted[id.nonce()]++
	}
	at := bytes.Index(frame, []byte(numberWord))
	if at < 0 || len(frame) < at+len(numberWord)+8 {
		return
	}
	n, err := strconv.ParseUint(string(frame[at+len(numberWord):][:8]), 10, 32)
	if err == nil {
		wt.numbers[uint32(n)] = true
	}
}

// missing counts the numbers from one to another that did not come, and that
// the kernel did not drop for want of room.
func (wt *witness) missing(from, to uint32) (n int) {
	for range 200 {
		if n = wt.notSeen(from, to); n == 0 {
			return 0
		}
		time.Sleep(time.Millisecond)
	}
	var s struct{ packets, drops uint32 }
	getsockopt(wt.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS, bytesOf(&s))
	return max(0, n-int(s.drops))
}

func (wt *witness) notSeen(from, to uint32) (n int) {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	for i := from; i <= to; i++ {
		if !wt.numbers[i] {
			n++
		}
	}
	return n
}

// arrived counts the crafted frames of an attempt.
func (wt *witness) arrived(nonce uint32) int {
	wt.mu.Lock()
	defer wt.mu.Unlock()
	return wt.crafted[nonce]
}
