// Package broker hands captive sockets to processes without privileges. A
// Server listens on a unix socket of the type SOCK_SEQPACKET; a Client asks it for
// a capture and gets the socket (SCM_RIGHTS of unix(7)). docs/BROKER.md has the
// protocol.
//
// # Security considerations
//
// What a client says decides nothing about what it may see. Who it is comes from
// the kernel (Peer), whose packets those are from the caller's Config.Resolve, and
// that it sees no others is the business of the captive socket, in the kernel.
//
// A client may say anything at all, as fast as it likes. Messages have a largest
// size and are read strictly; descriptors that come with them are never taken into
// this process; each connection has a goroutine and deadlines of its own; what a
// jail may have is counted for the whole jail, however many clients it has.
//
// Captive sockets outlive the Server. The next one takes them up by their labels
// (Server.Adopt), and shuts those whose jail it does not know.
package broker

import (
	"fmt"

	"jailtap/bpf"
)

// Version is that of the protocol, which each message carries.
const Version = 1

// DefaultSocket is where the Server usually is.
const DefaultSocket = "/run/jailtap/jailtap.sock"

// A Request asks for a capture.
type Request struct {
	// Interface is a name in the client's network namespace, or "any". "": the
	// client binds the socket itself, which not every jail may.
	Interface string `json:"interface,omitempty"`
	Datagram  bool   `json:"datagram,omitempty"` // without Interface: frames begin with the network header

	Filter

	// Ring is the size of the ring that the socket gets, in bytes (TPACKET_V3); 0:
	// none, frames come by recvmsg(2), or the client makes a ring.
	Ring int `json:"ring,omitempty"`

	// Immediate makes a ring of which frames can be read after 1 ms, not 50 ms.
	Immediate bool `json:"immediate,omitempty"`
}

// A Filter says which packets in scope the client wants: an expression of
// pcap-filter(7), or a program, or all if there is neither.
type Filter struct {
	Expression string `json:"expression,omitempty"`
	// Program is about frames as a capture file has them.
	Program Program `json:"program,omitempty"`
	Snaplen int     `json:"snaplen,omitempty"` // bytes of a frame that an expression keeps; 0: 262144
}

// A Program is a classic BPF program, in JSON a list of [code, jt, jf, k].
type Program [][4]uint32

// ProgramOf is a program as a message has it.
func ProgramOf(p bpf.Program) (list Program) {
	for _, in := range p {
		list = append(list, [4]uint32{uint32(in.Op), uint32(in.Jt), uint32(in.Jf), in.K})
	}
	return list
}

// BPF is the inverse of ProgramOf.
func (p Program) BPF() (bpf.Program, error) {
	program := make(bpf.Program, len(p))
	for i, in := range p {
		if in[0] > 0xffff || in[1] > 0xff || in[2] > 0xff {
			return nil, fmt.Errorf("instruction %d of the program, %v: the code has 16 bits, jumps have 8", i, in)
		}
		program[i].Op, program[i].Jt, program[i].Jf, program[i].K = uint16(in[0]), uint8(in[1]), uint8(in[2]), in[3]
	}
	return program, nil
}

// A Grant says what a client was given.
type Grant struct {
	Cookie    uint64 `json:"cookie"` // the socket's (SO_COOKIE of socket(7))
	Interface string `json:"interface"`
	Ifindex   int    `json:"ifindex"`   // in the client's network namespace; 0: all, or none yet
	LinkType  uint32 `json:"link_type"` // LINKTYPE_ number of what frames are in a capture file
	Ring      int    `json:"ring"`      // bytes, as they were asked for
	Jail      string `json:"jail"`
	Scope     string `json:"scope"`  // in words, as it is now
	Policy    string `json:"policy"` // classic or full

	Rest
}

// Rest is what of a filter the kernel cannot do on a live frame: a program for the
// client to run, on frames as a capture file has them. Mostly there is none.
type Rest struct {
	Program Program `json:"rest,omitempty"`
}

// Stats counts frames that came to the socket, that were in scope, and of those
// that the filter took.
type Stats struct {
	Seen    uint64 `json:"seen"`
	InScope uint64 `json:"in_scope"`
	Matched uint64 `json:"matched"`
}

// A Code says why something was refused. Codes do not change; more may come.
type Code string

const (
	CodeMessage   Code = "message"   // not a message of this protocol, or not the time for it
	CodeVersion   Code = "version"   // another version of it
	CodePeer      Code = "peer"      // no jail for this process
	CodeScope     Code = "scope"     // the jail's addresses are not known
	CodeInterface Code = "interface" // there is none, or not for this jail
	CodeFilter    Code = "filter"    // not an expression or a program, or too long
	CodeLimit     Code = "limit"     // too many or too much; later it may be had
	CodeGuard     Code = "guard"     // the system lets no captive socket be made
)

// A Refusal is the Server's answer to what it does not do.
type Refusal struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

func (r *Refusal) Error() string { return r.Text + " (" + string(r.Code) + ")" }

// Refuse is a Refusal with a text of one line.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{code, oneLine(fmt.Sprintf(format, args...))}
}
