package conform

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"jailtap/bpf"
	"jailtap/compat/vectors"
)

// A Header is the first line of a verdict file: who answered what.
type Header struct {
	System  string `json:"system"` // as uname(1) has it: name, release, machine
	Engine  string `json:"engine"`
	Dialect string `json:"dialect"`
	Mode    string `json:"mode"`  // the interpreter; Mode.String
	Suite   string `json:"suite"` // hash of the vectors
	Vectors int    `json:"vectors"`
}

// A Record is one answer.
type Record struct {
	ID       string `json:"id"`
	Kind     string `json:"kind"`
	Question string `json:"question"`
	Packet   int    `json:"packet"`
	Size     int    `json:"size"` // of the packet, bytes that are there

	Refused bool   `json:"refused,omitempty"`
	Kept    uint32 `json:"kept"`            // 0: rejected, or a packet of 0 bytes
	Passed  bool   `json:"passed"`          // not rejected
	Exact   bool   `json:"exact,omitempty"` // Kept is the verdict, not only what is left of the packet
	Cannot  string `json:"cannot,omitempty"`

	// AsKnown says that it is the answer which the vectors demand of this
	// dialect. Causes are where the program is not portable.
	AsKnown bool        `json:"as_known"`
	Causes  []bpf.Cause `json:"causes,omitempty"`
}

func (r Record) answer() Answer {
	return Answer{Accepted: r.Passed, Kept: r.Kept, Exact: r.Exact, Cannot: r.Cannot}
}

func (r Record) String() string {
	if r.Refused {
		return "refused"
	}
	return r.answer().String()
}

// RecordAll asks an engine what the vectors ask and writes a verdict file. The
// header lacks what is known here.
func RecordAll(ctx context.Context, w io.Writer, h Header, set *vectors.Set, e Engine, progress func(done int)) error {
	questions := *set
	questions.Kernel = nil // those are answers
	all := list(&questions)
	h.Engine, h.Dialect, h.Mode = e.Name(), e.Mode().Dialect().String(), e.Mode().String()
	h.Suite, h.Vectors = set.Hash(), len(all)
	records := make([][]Record, len(all))
	failures := make([]error, len(all))
	err := parallel(ctx, len(all), progress, func(i int) { records[i], failures[i] = all[i].record(e) })
	if err := errors.Join(err, errors.Join(failures...)); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	if err := lines.Encode(h); err != nil {
		return err
	}
	for _, answers := range records {
		for _, r := range answers {
			if err := lines.Encode(r); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

// record asks one vector.
func (v vector) record(e Engine) (records []Record, err error) {
	questions, _ := v.ask(e) // what there is no right answer to is not comparable either
	for _, q := range questions {
		answers, err := e.Ask(q.filter, q.pkts)
		var cannot *CannotError
		refused := errors.Is(err, ErrRefused)
		if err != nil && !refused && !errors.As(err, &cannot) {
			return nil, fmt.Errorf("%s %s: %w", v.kind, v.id, err)
		}
		for i, pkt := range q.pkts {
			r := Record{ID: v.id, Kind: v.kind, Question: q.name, Packet: i, Size: len(pkt.Data), Refused: refused}
			switch {
			case refused:
				r.AsKnown = q.refused
			case cannot != nil:
				r.Cannot = cannot.Reason
			default:
				a := answers[i]
				r.Passed, r.Kept, r.Exact, r.Cannot = a.Accepted, a.Kept, a.Exact, a.Cannot
				if !q.refused && a.Cannot == "" {
					right, known := q.right(i)
					r.AsKnown = known && q.holds(i, right, a)
				}
			}
			for _, d := range bpf.Portable(q.user) {
				r.Causes = append(r.Causes, d.Cause)
			}
			records = append(records, r)
		}
	}
	return records, nil
}

// A Verdicts is a verdict file that was read.
type Verdicts struct {
	Header
	Name    string
	records []Record
	index   map[key]int
}

// A key is what a record answers.
type key struct {
	kind, id, question string
	packet             int
}

func (r Record) key() key { return key{r.Kind, r.ID, r.Question, r.Packet} }

// ReadVerdicts reads what RecordAll wrote. Errors name the file and the line.
func ReadVerdicts(name string, file io.Reader) (*Verdicts, error) {
	v := &Verdicts{Name: name, index: make(map[key]int)}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	number := 0
	for lines.Scan() {
		number++
		if err := v.add(number, lines.Bytes()); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: line %d: %w", name, number+1, err)
	}
	if number == 0 {
		return nil, fmt.Errorf("%s: it is empty, and no verdict file", name)
	}
	return v, nil
}

func (v *Verdicts) add(number int, line []byte) error {
	strict := json.NewDecoder(bytes.NewReader(line))
	strict.DisallowUnknownFields()
	if number == 1 {
		if err := strict.Decode(&v.Header); err != nil {
			return fmt.Errorf("no header of a verdict file: %w", err)
		}
		if v.Suite == "" {
			return errors.New("no header of a verdict file: it does not name its suite")
		}
		return nil
	}
	var r Record
	if err := strict.Decode(&r); err != nil {
		return err
	}
	if _, twice := v.index[r.key()]; twice {
		return fmt.Errorf("a second answer for %s %s, %s, packet %d", r.Kind, r.ID, r.Question, r.Packet)
	}
	v.index[r.key()] = len(v.records)
	v.records = append(v.records, r)
	return nil
}
