package main

import (
	"fmt"

	"jailtap/bpf"
	"jailtap/internal/capfile"
)

// A judge gives verdicts on the packets of capture files: the same program
// that a kernel would get, in the reference VM.
type judge struct {
	scope    *bpf.Scope // nil: everything is in scope
	user     *userFilter
	dialect  bpf.Dialect
	programs map[uint32]judgePrograms // by LINKTYPE

	seen, inScope, matched uint64
}

type judgePrograms struct{ scope, all bpf.Program }

func newJudge(scope *bpf.Scope, user *userFilter, d bpf.Dialect) *judge {
	return &judge{scope: scope, user: user, dialect: d, programs: make(map[uint32]judgePrograms)}
}

// verdict says how many bytes of the packet to keep; 0: none of it.
func (j *judge) verdict(p *capfile.Packet) (keep uint32, inScope bool, err error) {
	programs, ok := j.programs[p.Interface.LinkType]
	if !ok {
		if programs, err = j.compile(bpf.FileLinkType(p.Interface.LinkType)); err != nil {
			return 0, false, err
		}
		j.programs[p.Interface.LinkType] = programs
	}
	vm := bpf.VM{Dialect: j.dialect}
	packet := bpf.Packet{Data: p.Data, WireLen: uint32(p.Len)}
	j.seen++
	if j.scope != nil && vm.Run(programs.scope, packet) == 0 {
		return 0, false, nil
	}
	j.inScope++
	keep = vm.Run(programs.all, packet)
	if keep > 0 {
		j.matched++
	}
	return keep, true, nil
}

func (j *judge) compile(lt bpf.LinkType) (p judgePrograms, err error) {
	user, err := j.user.compile(lt)
	if err != nil {
		return p, err
	}
	if err := j.aboutFiles(user); err != nil {
		return p, err
	}
	if j.scope == nil {
		return judgePrograms{all: user}, nil
	}
	view := bpf.View{LinkType: lt}
	if p.scope, err = bpf.Compile(*j.scope, view, j.dialect, nil); err == nil {
		p.all, err = bpf.Compile(*j.scope, view, j.dialect, user)
	}
	return p, err
}

// skfLLOff is the lowest of the negative offsets (SKF_LL_OFF, linux/filter.h)
// behind which Linux keeps what it knows of a packet besides its bytes.
const skfLLOff = 0xffe00000

// aboutFiles refuses programs about what a file does not hold.
func (j *judge) aboutFiles(p bpf.Program) error {
	const classAndMode, loadAbsolute = 0xe7, 0x20
	for i, in := range p {
		if j.dialect == bpf.Linux && in.Op&classAndMode == loadAbsolute && in.K >= skfLLOff {
			return fmt.Errorf("the filter asks what only a live capture knows, as inbound, outbound and ifindex do (instruction %s)", p.Line(i))
		}
	}
	return nil
}
