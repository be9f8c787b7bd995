package main

import (
	"fmt"
	"io"
	"strings"
)

// A bar shows how far something has come, on a terminal only.
type bar struct {
	w     io.Writer // nil: nothing is shown
	label string
	of    int
	shown int // of barWidth
}

// The widths of a bar and of what is before it, which together leave room for two
// numbers in the 80 columns of a terminal: what is longer wraps, and stays there.
const barWidth, labelWidth = 40, 20

func newBar(w io.Writer, label string, of int) *bar {
	if letters := []rune(label); len(letters) > labelWidth {
		label = "…" + string(letters[len(letters)-labelWidth+1:])
	}
	b := &bar{label: label, of: of, shown: -1}
	if isTerminal(w) {
		b.w = w
	}
	return b
}

// at shows that so much is done. What others told meanwhile may be more.
func (b *bar) at(done int) {
	full := done * barWidth / max(b.of, 1)
	if b.w == nil || full <= b.shown {
		return
	}
	b.shown = full
	fmt.Fprintf(b.w, "\r%s [%s%s] %d of %d", b.label, strings.Repeat("#", full), strings.Repeat(" ", barWidth-full), done, b.of)
}

// clear takes it away.
func (b *bar) clear() {
	if b.w != nil {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
