package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// maxMessage is the size of the largest message, bytes. The longest program that
// Linux takes (BPF_MAXINSNS, 4096) fits.
const maxMessage = 160 << 10

// Operations that a message asks for.
const (
	opCapture = "capture"
	opFilter  = "filter"
	opClear   = "clear"
	opStats   = "stats"
)

// A message is what a client sends.
type message struct {
	Version int    `json:"version"`
	Op      string `json:"op"`
	Request
}

// An answer is what it gets: Error, or what it asked for.
type answer struct {
	Version int      `json:"version"`
	Error   *Refusal `json:"error,omitempty"`
	Grant   *Grant   `json:"grant,omitempty"`
	Rest    *Rest    `json:"filter,omitempty"`
	Stats   *Stats   `json:"stats,omitempty"`
}

// readMessage reads a whole message. Nothing may be in it that is not known.
func readMessage(text []byte) (*message, *Refusal) {
	if len(text) > maxMessage {
		return nil, Refuse(CodeMessage, "the message is longer than %d bytes", maxMessage)
	}
	m := &message{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(m)
	if refusal := checkVersion(text, m, err); refusal != nil {
		return nil, refusal
	}
	if err != nil {
		return nil, Refuse(CodeMessage, "the message does not make sense: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, Refuse(CodeMessage, "there is more behind the message")
	}
	return m, m.check()
}

// checkVersion says whether the message is of our version, which comes before anything
// else about it. Where reading it has failed, that part of it is read again.
func checkVersion(text []byte, m *message, failed error) *Refusal {
	version := m.Version
	if failed != nil {
		var versioned struct{ Version int }
		if err := json.Unmarshal(text, &versioned); err != nil {
			return Refuse(CodeMessage, "the message is no JSON object of ours: %v", err)
		}
		version = versioned.Version
	}
	if version != Version {
		return Refuse(CodeVersion, "version %d of the protocol is not spoken here, %d is", version, Version)
	}
	return nil
}

// check says what about a message makes no sense whoever sends it.
func (m *message) check() *Refusal {
	bare := m.Interface == "" && !m.Datagram && m.Ring == 0 && !m.Immediate
	empty := m.Expression == "" && m.Program == nil && m.Snaplen == 0
	switch {
	case m.Op == opFilter && !bare, (m.Op == opClear || m.Op == opStats) && !(bare && empty):
		return Refuse(CodeMessage, "%s goes without most of the fields that there are", m.Op)
	case m.Op != opCapture && m.Op != opFilter && m.Op != opClear && m.Op != opStats:
		return Refuse(CodeMessage, "unknown op %.20q: known are capture, filter, clear, stats", m.Op)
	case m.Datagram && m.Interface != "":
		return Refuse(CodeMessage, "datagram goes without interface, whose kind decides how frames begin")
	case m.Immediate && m.Ring == 0:
		return Refuse(CodeMessage, "immediate is about a ring, and none is asked for")
	case m.Ring < 0:
		return Refuse(CodeMessage, "bad ring %d: want bytes", m.Ring)
	}
	return m.Filter.check()
}

// maxSnaplen is tcpdump's MAXIMUM_SNAPLEN.
const maxSnaplen = 262144

// maxExpression is the longest expression, bytes.
const maxExpression = 16 << 10

func (f *Filter) check() *Refusal {
	switch {
	case f.Expression != "" && f.Program != nil:
		return Refuse(CodeFilter, "expression and program exclude one another")
	case len(f.Expression) > maxExpression:
		return Refuse(CodeLimit, "the expression is longer than %d bytes", maxExpression)
	case f.Snaplen < 0 || f.Snaplen > maxSnaplen:
		return Refuse(CodeFilter, "bad snaplen %d: want 0 to %d bytes", f.Snaplen, maxSnaplen)
	}
	if f.Snaplen == 0 {
		f.Snaplen = maxSnaplen
	}
	return nil
}

// everything reports whether nothing of what is in scope is left out or cut.
func (f *Filter) everything() bool {
	return f.Expression == "" && f.Program == nil && f.Snaplen == maxSnaplen
}

// oneLine is a text without line feeds and other controls.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(text))
}
