// Package vectors reads conformance vectors: programs and packets, with the
// answers that other implementations gave. The format is one JSON object a
// line; README.md describes the kinds and says where the answers come from.
package vectors

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"slices"

	"jailtap/bpf"

	xbpf "golang.org/x/net/bpf"
)

// A Set is what one or more files hold, in their order.
type Set struct {
	Interp []Interp
	Scope  []Scope
	Limit  []Limit
	Accept []Accept
	Kernel []Kernel

	sums [][sha256.Size]byte // of each vector's line; see Hash
}

// An Interp is kind `interp`: a program, a packet, and what FreeBSD's
// bpf_validate and bpf_filter say.
type Interp struct {
	ID      string
	Prog    Program
	Pkt     Bytes   // what is present of the packet
	WireLen uint32  // bytes
	Valid   bool    // bpf_validate, which knows no limit on the length
	Ret     uint32  // on a flat buffer; 0 unless Valid
	RetMbuf *uint32 `json:"ret_mbuf"` // in an mbuf, where that is not Ret
	Linux   Linux   // for valid programs
	UB      string  // "shift": shifts by 32 or more, which C leaves undefined
	Tag     string
}

// Linux is where Linux is not the same as FreeBSD's flat buffer.
type Linux string

const (
	LinuxSame    Linux = ""
	LinuxRefuses Linux = "EINVAL"  // the program
	LinuxDiffers Linux = "differs" // in the verdict
)

// A Scope is kind `scope` or `scope-limit`: a user program behind the scope of
// some addresses.
type Scope struct {
	ID       string
	Kind     string
	LinkType LinkType
	Addrs    []netip.Addr
	Policy   Policy
	Filter   string  // an expression that User was compiled from, or asm:NAME
	Snaplen  uint32  // bytes
	User     Program // empty: no filter
	Pkt      Bytes
	WireLen  uint32

	WantScope bool    `json:"want_scope"`
	WantUser  uint32  `json:"want_user"`
	Want      uint32  // WantUser if WantScope, else 0
	WantMbuf  *uint32 `json:"want_mbuf"`
	LinuxUser Linux   `json:"linux_user"` // about WantUser

	// UserInsns and ScopeInsns are given for `scope-limit`: the lengths of User
	// and of libpcap's scope.
	UserInsns  int `json:"user_insns"`
	ScopeInsns int `json:"scope_insns_libpcap"`
	Tag        string
}

// A Limit is kind `limit`: a long program and who takes it.
type Limit struct {
	ID            string
	Prog          Program
	Pkt           Bytes
	WireLen       uint32
	BPFValidate   bool `json:"bpf_validate"`
	FreeBSDAttach bool `json:"freebsd_attach"`
	LinuxAttach   bool `json:"linux_attach"`
	Ret           uint32
}

// An Accept is kind `accept`: a user program and some packets, with the verdict
// on each in a flat buffer.
type Accept struct {
	ID       string
	LinkType LinkType
	Filter   string // an expression that User was compiled from
	User     Program
	Pkts     []Bytes
	WireLens []uint32
	Results  Results
	Tag      string
}

// Results are verdicts. Where all of them are 0, 1, false or true they say only
// whether a packet is accepted.
type Results []uint32

// UnmarshalJSON implements json.Unmarshaler.
func (r *Results) UnmarshalJSON(text []byte) error {
	var rows []json.RawMessage
	if err := json.Unmarshal(text, &rows); err != nil {
		return err
	}
	*r = make(Results, len(rows))
	for i, row := range rows {
		switch string(row) {
		case "false":
		case "true":
			(*r)[i] = 1
		default:
			if err := json.Unmarshal(row, &(*r)[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// A Kernel is a line without a kind: what a FreeBSD kernel did with the vector
// of that file and name (for `scope`, with its user program), on frames that
// went through a tap interface with no more length on the wire than they have.
type Kernel struct {
	ID         string
	File       string // interp, scope or limits
	Valid      bool   // BIOCSETF took the program
	Ran        bool
	Whole      bool    // the vector's frame is not cut
	Caplen     uint32  // bytes kept; 0: rejected
	ConjCaplen *uint32 `json:"conj_caplen"` // the same of libpcap's conjunction
	Skip       string  // why it was not run
}

// Packet is the packet as the VM takes it.
func (v Interp) Packet() bpf.Packet { return bpf.Packet{Data: v.Pkt, WireLen: v.WireLen} }

// Packet is the packet as the VM takes it.
func (v Scope) Packet() bpf.Packet { return bpf.Packet{Data: v.Pkt, WireLen: v.WireLen} }

// Packet is the packet as the VM takes it.
func (v Limit) Packet() bpf.Packet { return bpf.Packet{Data: v.Pkt, WireLen: v.WireLen} }

// Packet is packet i as the VM takes it.
func (v Accept) Packet(i int) bpf.Packet {
	return bpf.Packet{Data: v.Pkts[i], WireLen: v.WireLens[i]}
}

// Whether reports whether the results say only that packets are accepted, and
// not how much of them is kept.
func (v Accept) Whether() bool { return slices.Max(v.Results) <= 1 }

// Scope is the vector's scope.
func (v Scope) Scope() bpf.Scope {
	s := bpf.Scope{Policy: bpf.Policy(v.Policy)}
	for _, a := range v.Addrs {
		s.Addrs = append(s.Addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	return s
}

//go:embed *.jsonl.gz
var public embed.FS

// Public returns the vectors that are part of jailtap.
func Public() (Set, error) {
	var set Set
	names, err := fs.Glob(public, "*.jsonl.gz")
	if err != nil {
		return Set{}, err
	}
	for _, name := range names {
		file, err := public.Open(name)
		if err != nil {
			return Set{}, err
		}
		if err := set.Read(name, file); err != nil {
			return Set{}, err
		}
	}
	return set, nil
}

// Read adds the vectors of a file, which may be gzipped. Errors name the file
// and the line.
func (s *Set) Read(name string, file io.Reader) error {
	r := bufio.NewReader(file)
	if magic, _ := r.Peek(2); string(magic) == "\x1f\x8b" { // RFC 1952, 2.3.1
		unzipped, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r = bufio.NewReader(unzipped)
	}
	for number := 1; ; number++ {
		line, err := r.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("%s: line %d: %w", name, number, err)
		}
		if len(bytes.TrimSpace(line)) > 0 {
			if err := s.add(line); err != nil {
				return fmt.Errorf("%s: line %d: %w", name, number, err)
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// add reads one vector.
func (s *Set) add(line []byte) error {
	var head struct {
		Kind, ID, File string
		Prog, User     json.RawMessage
		Pkt, Pkts      json.RawMessage
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return err
	}
	program, packet := head.Prog, head.Pkt
	switch head.Kind {
	case "scope", "scope-limit":
		program = head.User
	case "accept":
		program, packet = head.User, head.Pkts
	case "":
		if head.File == "" || head.ID == "" {
			return errors.New("neither a kind, nor the file and id of a vector that a kernel answers")
		}
		return read(line, &s.Kernel)
	}
	if head.ID == "" || program == nil || packet == nil {
		return fmt.Errorf("kind %q needs id, program and packet", head.Kind)
	}
	s.sums = append(s.sums, sha256.Sum256(bytes.TrimSpace(line)))
	switch head.Kind {
	case "interp":
		return read(line, &s.Interp)
	case "scope", "scope-limit":
		if err := read(line, &s.Scope); err != nil {
			return err
		}
		return s.Scope[len(s.Scope)-1].check()
	case "limit":
		return read(line, &s.Limit)
	case "accept":
		if err := read(line, &s.Accept); err != nil {
			return err
		}
		return s.Accept[len(s.Accept)-1].check()
	}
	return fmt.Errorf("unknown kind %q: known are interp, scope, scope-limit, limit and accept", head.Kind)
}

func (v Scope) check() error {
	if lt := bpf.LinkType(v.LinkType); !slices.Contains(bpf.LinkTypes(), lt) {
		return fmt.Errorf("unknown link type %d: scopes are known for %v", uint32(lt), bpf.LinkTypes())
	}
	return nil
}

func (v Accept) check() error {
	if n := len(v.Pkts); n == 0 || n != len(v.WireLens) || n != len(v.Results) {
		return fmt.Errorf("%d pkts, %d wirelens, %d results: want one of each a packet", n, len(v.WireLens), len(v.Results))
	}
	return nil
}

// Hash names the vectors of the set, in whatever order: two sets with the same
// hash ask the same. What a kernel answered is not part of it.
func (s *Set) Hash() string {
	sums := slices.Clone(s.sums)
	slices.SortFunc(sums, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, sum := range sums {
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Len is the number of vectors, with the answers of a kernel.
func (s *Set) Len() int {
	return len(s.Interp) + len(s.Scope) + len(s.Limit) + len(s.Accept) + len(s.Kernel)
}

func read[V any](line []byte, list *[]V) error {
	var v V
	if err := json.Unmarshal(line, &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

// Bytes is written in hexadecimal.
type Bytes []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// A LinkType is written as a number; 12 and 101 are both bpf.Raw.
type LinkType bpf.LinkType

// UnmarshalJSON implements json.Unmarshaler.
func (lt *LinkType) UnmarshalJSON(text []byte) error {
	var n uint32
	err := json.Unmarshal(text, &n)
	*lt = LinkType(bpf.FileLinkType(n))
	return err
}

// A Policy is written by its name.
type Policy bpf.Policy

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Policy) UnmarshalText(text []byte) error {
	policy, err := bpf.ParsePolicy(string(text))
	*p = Policy(policy)
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler: a word that is not known
// would pass for LinuxSame.
func (l *Linux) UnmarshalText(text []byte) error {
	*l = Linux(text)
	if *l != LinuxRefuses && *l != LinuxDiffers {
		return fmt.Errorf("unknown answer of Linux %q: known are EINVAL and differs", text)
	}
	return nil
}

// A Program is written [[code, jt, jf, k], ...].
type Program bpf.Program

// UnmarshalJSON implements json.Unmarshaler.
func (p *Program) UnmarshalJSON(text []byte) error {
	var rows [][]uint32
	if err := json.Unmarshal(text, &rows); err != nil {
		return err
	}
	*p = make(Program, len(rows))
	for i, row := range rows {
		if len(row) != 4 || row[0] > math.MaxUint16 || row[1] > math.MaxUint8 || row[2] > math.MaxUint8 {
			return fmt.Errorf("instruction %d: %v is not [code, jt, jf, k]", i, row)
		}
		(*p)[i] = xbpf.RawInstruction{Op: uint16(row[0]), Jt: uint8(row[1]), Jf: uint8(row[2]), K: row[3]}
	}
	return nil
}
