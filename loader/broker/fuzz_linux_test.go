package broker

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var messages = []string{
	`{"version":1,"op":"capture","interface":"eth0","expression":"all","snaplen":96,"ring":65536}`,
	`{"version":1,"op":"capture","datagram":true,"program":[[40,0,0,12],[21,0,1,2048],[6,0,0,96],[6,0,0,0]]}`,
	`{"version":1,"op":"filter","expression":"all"}`,
	`{"version":1,"op":"clear"}`,
	`{"version":1,"op":"stats"}`,
	`{"version":2}`, `{"version":1,"op":"capture","program":[[70000]]}`, `[`, `null`, "",
}

// A message that is read says the same when it is written again, and is within
// the bounds that the rest relies on.
func FuzzRequest(f *testing.F) {
	for _, text := range messages {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, refusal := readMessage(text)
		if refusal != nil {
			if refusal.Code == "" || oneLine(refusal.Text) != refusal.Text {
				t.Fatalf("%+v", refusal)
			}
			return
		}
		if m.Snaplen < 1 || m.Snaplen > maxSnaplen || m.Ring < 0 || len(m.Expression) > maxExpression || m.Expression != "" && m.Program != nil {
			t.Fatalf("%+v", m)
		}
		if p, err := m.Program.BPF(); err == nil && len(p) > 0 && !reflect.DeepEqual(ProgramOf(p), m.Program) {
			t.Fatalf("%v became %v", m.Program, p)
		}
		if m.Op == opClear || m.Op == opStats {
			return // the snaplen that has been put in does not go with them
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if m.Program != nil && len(m.Program) == 0 { // is left out
			return
		}
		if back, refusal := readMessage(again); refusal != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v became %+v (%v)", m, back, refusal)
		}
	})
}

// FuzzConnection sends datagrams, which 0xff ends, each with some descriptors.
func FuzzConnection(f *testing.F) {
	for i, text := range messages {
		f.Add([]byte(text), byte(i))
		f.Add(bytes.Join([][]byte{[]byte(messages[0]), []byte(text), []byte(messages[4])}, []byte{0xff}), byte(i))
	}
	b := open(f, Jail{Limits: Limits{Captives: 8}}, nil)
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	defer null.Close()
	_, socket := b.capture(f, Request{Interface: "eth0"})
	socket.Close()
	f.Fuzz(func(t *testing.T, text []byte, fds byte) {
		var before int
		eventually(t, "rest", func() bool { // from the last time
			b.sweep(time.Hour)
			before = descriptors(t)
			return b.Server.Stats()[1].Captives == 0
		})
		c := b.dial(t)
		for datagram := range bytes.SplitSeq(text, []byte{0xff}) {
			var rights []byte
			for range fds % 5 {
				rights = append(rights, unix.UnixRights(int(null.Fd()), int(null.Fd()))...)
			}
			if err := unix.Sendmsg(c.fd, datagram, rights, nil, unix.MSG_NOSIGNAL); err != nil {
				break // the Server has had enough
			}
			unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
			_, socket, err := c.receive()
			if socket != nil {
				socket.Close()
			}
			if err != nil {
				break
			}
		}
		c.Close()
		_, socket := b.capture(t, Request{Interface: "eth0"}) // it still does
		socket.Close()
		eventually(t, "descriptors as before", func() bool { b.sweep(time.Hour); return descriptors(t) <= before+2 })
	})
}
