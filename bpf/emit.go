package bpf

import (
	"slices"

	xbpf "golang.org/x/net/bpf"
)

// farthest is the longest way that a conditional jump can go: its offsets have
// 8 bits.
const farthest = 255

// emit writes the graph as a program, with tail behind it where a block leads
// there.
//
// It works from the end, so that each jump's target has its place when the
// jump is written. Places are counted from the end too.
func emit(entry *block, tail Program) Program {
	e := &emitter{
		reversed: append(make(Program, 0, len(tail)+usualLength), tail...),
		places:   make(map[*block]int, usualBlocks),
	}
	slices.Reverse(e.reversed)
	e.tail = len(tail) - 1
	e.block(entry)
	slices.Reverse(e.reversed)
	return e.reversed
}

// usualLength is that of programs with few addresses: what there is room for at first.
const usualLength = 64

type emitter struct {
	reversed Program
	places   map[*block]int // of each block's first instruction
	islands  map[*block]int // of the nearest jump or copy that leads to it
	tail     int
}

func (e *emitter) block(b *block) {
	if _, done := e.places[b]; done {
		return
	}
	if b.tail {
		e.places[b] = e.tail
		return
	}
	last := b.last
	if !b.returns() {
		// The way taken by fewer frames (no) comes first, so that the other is
		// the nearer one.
		e.block(b.no)
		e.block(b.yes)
		yes := e.reach(b.yes, 1) // the island for no may yet come between
		no := e.reach(b.no, 0)
		last.Jt = uint8(len(e.reversed) - yes - 1)
		last.Jf = uint8(len(e.reversed) - no - 1)
	}
	e.reversed = append(e.reversed, last)
	for _, in := range slices.Backward(b.body) {
		e.reversed = append(e.reversed, in)
	}
	e.places[b] = len(e.reversed) - 1
}

// reach is a place that leads to b and that a jump written next, or slack
// instructions later, can go to.
func (e *emitter) reach(b *block, slack int) int {
	near := func(place int) bool { return len(e.reversed)+slack-place-1 <= farthest }
	place := e.places[b]
	if near(place) {
		return place
	}
	if island, ok := e.islands[b]; ok && near(island) {
		return island
	}
	island := xbpf.RawInstruction{Op: opJa, K: uint32(len(e.reversed) - place - 1)}
	if b.returns() && len(b.body) == 0 && !b.tail {
		island = b.last // as short as a jump there, and a step less
	}
	e.reversed = append(e.reversed, island)
	if e.islands == nil {
		e.islands = make(map[*block]int)
	}
	e.islands[b] = len(e.reversed) - 1
	return e.islands[b]
}
