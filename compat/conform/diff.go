package conform

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"jailtap/bpf"
)

// A Diff is what two verdict files have and have not in common.
type Diff struct {
	A        Header  `json:"a"`
	B        Header  `json:"b"`
	Compared int     `json:"compared"` // questions that both answered
	Alike    int     `json:"alike"`    // of them
	Missing  int     `json:"missing"`  // questions that one of them has no answer to
	Groups   []Group `json:"groups"`   // the rest, by cause; those without one come first
}

// A Group is answers that differ for the same cause.
type Group struct {
	Cause bpf.Cause `json:"cause"` // "": it is not documented
	Pairs []Pair    `json:"pairs"`
}

// A Pair is two answers to one question.
type Pair struct {
	A Record `json:"a"`
	B Record `json:"b"`
}

// Undocumented is the number of differences that nothing explains.
func (d *Diff) Undocumented() int {
	for _, g := range d.Groups {
		if g.Cause == "" {
			return len(g.Pairs)
		}
	}
	return 0
}

// Compare compares what two systems answered. A difference is documented if
// each system answered as is known of its interpreter, and the program has a
// place where their interpreters differ.
func Compare(a, b *Verdicts) (*Diff, error) {
	if a.Suite != b.Suite {
		return nil, fmt.Errorf("%s and %s answer different vectors (suites %.12s and %.12s): record both with the same files", a.Name, b.Name, a.Suite, b.Suite)
	}
	d := &Diff{A: a.Header, B: b.Header}
	groups := make(map[bpf.Cause][]Pair)
	seen := make(map[key]bool)
	for _, r := range a.records {
		i, ok := b.counterpart(r)
		if !ok {
			d.Missing++
			continue
		}
		other := b.records[i]
		seen[other.key()] = true
		d.compare(r, other, groups)
	}
	for _, r := range b.records {
		if seen[r.key()] {
			continue
		}
		if i, ok := a.counterpart(r); ok {
			d.compare(a.records[i], r, groups)
		} else {
			d.Missing++
		}
	}
	if d.Compared == 0 {
		return nil, fmt.Errorf("there is no question that both %s and %s answer", a.Name, b.Name)
	}
	for cause, pairs := range groups {
		d.Groups = append(d.Groups, Group{cause, pairs})
	}
	slices.SortFunc(d.Groups, func(x, y Group) int { return strings.Compare(string(x.Cause), string(y.Cause)) })
	return d, nil
}

// normalized begins the name of a question about a program that was changed
// for a system which does not take it as it is.
const normalized = "normalized "

// counterpart finds the answer to the same question. What is asked of a
// normalized program here is asked of the program itself elsewhere.
func (v *Verdicts) counterpart(r Record) (int, bool) {
	k := r.key()
	if i, ok := v.index[k]; ok {
		return i, true
	}
	k.question = strings.TrimPrefix(k.question, normalized)
	i, ok := v.index[k]
	return i, ok
}

func (d *Diff) compare(a, b Record, groups map[bpf.Cause][]Pair) {
	if a.Cannot != "" || b.Cannot != "" {
		d.Missing++
		return
	}
	d.Compared++
	if alike(a, b) {
		d.Alike++
		return
	}
	cause := d.explain(a, b)
	groups[cause] = append(groups[cause], Pair{a, b})
}

// explain finds the cause of a difference among those that the program has; ""
// if there is none.
func (d *Diff) explain(a, b Record) bpf.Cause {
	if !a.AsKnown || !b.AsKnown {
		return ""
	}
	for _, c := range a.Causes {
		documented := CauseOf(c)
		possible := documented.Judges
		if a.Refused != b.Refused {
			possible = documented.Refuses
		}
		// Metadata differs with where the packet is, too.
		if possible && (d.A.Mode != d.B.Mode || c == bpf.CauseMetadata) {
			return c
		}
	}
	return ""
}

// alike reports whether two answers are the same, as far as both tell.
func alike(a, b Record) bool {
	if a.Refused || b.Refused {
		return a.Refused == b.Refused
	}
	x, y := a.answer(), b.answer()
	if x.Exact && !y.Exact {
		x, y = y, x
	}
	return x.Accepted == y.Accepted && (x.Kept == y.Kept || !x.Exact && x.Kept == min(y.Kept, uint32(a.Size)))
}

func (h Header) String() string {
	return fmt.Sprintf("%s, engine %s, %s", h.System, h.Engine, h.Mode)
}

// Write prints the comparison. Of each documented group it prints so many pairs
// at most; of what is not documented, all.
func (d *Diff) Write(w io.Writer, most int) error {
	text := &strings.Builder{}
	fmt.Fprintf(text, "A: %v\nB: %v\n", d.A, d.B)
	for _, g := range d.Groups {
		shown := g.Pairs
		if g.Cause == "" {
			fmt.Fprintf(text, "\nnot documented: %d\n", len(g.Pairs))
		} else {
			c := CauseOf(g.Cause)
			fmt.Fprintf(text, "\n%s: %d (%s)\n", g.Cause, len(g.Pairs), c.What)
			shown = shown[:min(most, len(shown))]
		}
		for _, p := range shown {
			fmt.Fprintf(text, "  %s %s, %s, packet %d: A %v, B %v\n", p.A.Kind, p.A.ID, p.A.Question, p.A.Packet, p.A, p.B)
		}
		if left := len(g.Pairs) - len(shown); left > 0 {
			fmt.Fprintf(text, "  and %d more\n", left)
		}
	}
	fmt.Fprintf(text, "\n%d compared, %d alike, %d documented, %d not documented; %d answered by one only\n",
		d.Compared, d.Alike, d.Compared-d.Alike-d.Undocumented(), d.Undocumented(), d.Missing)
	_, err := io.WriteString(w, text.String())
	return err
}
