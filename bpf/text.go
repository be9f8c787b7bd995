package bpf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	xbpf "golang.org/x/net/bpf"
)

// A form is how tcpdump -d writes an opcode: its name, and a format for K.
type form struct{ name, operand string }

// forms has an entry for each of the 49 opcodes that both systems know. The
// words are those of bpf_image.c in libpcap 1.10.
var forms = [256]form{
	opLdW: {"ld", "[%d]"}, opLdH: {"ldh", "[%d]"}, opLdB: {"ldb", "[%d]"},
	opLdIndW: {"ld", "[x + %d]"}, opLdIndH: {"ldh", "[x + %d]"}, opLdIndB: {"ldb", "[x + %d]"},
	opLdImm: {"ld", "#0x%x"}, opLdLen: {"ld", "#pktlen"}, opLdMem: {"ld", "M[%d]"},
	opLdxImm: {"ldx", "#0x%x"}, opLdxMem: {"ldx", "M[%d]"}, opLdxMsh: {"ldxb", "4*([%d]&0xf)"},
	opLdxLen: {"unimp", "0x81"}, // valid, but libpcap has no word for it
	opSt:     {"st", "M[%d]"}, opStx: {"stx", "M[%d]"},

	classAlu | aluAdd: {"add", "#%d"}, classAlu | aluAdd | srcX: {"add", "x"},
	classAlu | aluSub: {"sub", "#%d"}, classAlu | aluSub | srcX: {"sub", "x"},
	classAlu | aluMul: {"mul", "#%d"}, classAlu | aluMul | srcX: {"mul", "x"},
	classAlu | aluDiv: {"div", "#%d"}, classAlu | aluDiv | srcX: {"div", "x"},
	classAlu | aluMod: {"mod", "#%d"}, classAlu | aluMod | srcX: {"mod", "x"},
	classAlu | aluAnd: {"and", "#0x%x"}, classAlu | aluAnd | srcX: {"and", "x"},
	classAlu | aluOr: {"or", "#0x%x"}, classAlu | aluOr | srcX: {"or", "x"},
	classAlu | aluXor: {"xor", "#0x%x"}, classAlu | aluXor | srcX: {"xor", "x"},
	classAlu | aluLsh: {"lsh", "#%d"}, classAlu | aluLsh | srcX: {"lsh", "x"},
	classAlu | aluRsh: {"rsh", "#%d"}, classAlu | aluRsh | srcX: {"rsh", "x"},
	classAlu | aluNeg: {"neg", ""},

	opJa:  {"ja", "%d"}, // the target's number, not K
	opJeq: {"jeq", "#0x%x"}, opJeq | srcX: {"jeq", "x"},
	opJgt: {"jgt", "#0x%x"}, opJgt | srcX: {"jgt", "x"},
	opJge: {"jge", "#0x%x"}, opJge | srcX: {"jge", "x"},
	opJset: {"jset", "#0x%x"}, opJset | srcX: {"jset", "x"},

	opRetK: {"ret", "#%d"}, opRetA: {"ret", ""},
	opTax: {"tax", ""}, opTxa: {"txa", ""},
}

// known reports whether op is one of the 49 opcodes.
func known(op uint16) bool { return op < 256 && forms[op].name != "" }

// ancillaryNames are libpcap's words for K of absolute loads of metadata.
var ancillaryNames = map[uint32]string{
	adProtocol: "proto", adPktType: "type", adIfindex: "ifidx", adNlattr: "nla", adNlattrNest: "nlan",
	adMark: "mark", adQueue: "queue", adHatype: "hatype", adRxhash: "rxhash", adCPU: "cpu", adAluXorX: "xor_x",
	adVlanTag: "vlan_tci", adVlanTagged: "vlanp", adPayOff: "poff", adRandom: "random", adVlanTPID: "vlan_tpid",
}

func isAbs(op uint16) bool { return op == opLdW || op == opLdH || op == opLdB }

// isBranch is about conditional jumps, valid ones or not.
func isBranch(op uint16) bool { return op&classMask == classJmp && op&jmpMask != jmpJa }

// Text is p as tcpdump -d prints it. It leaves out what an instruction does
// not use, as Jt of a load; of an opcode that no system knows it leaves out K.
func (p Program) Text() string {
	var b strings.Builder
	for i := range p {
		b.WriteString(p.Line(i))
		b.WriteByte('\n')
	}
	return b.String()
}

// Line is instruction i as tcpdump -d prints it, without the end of line.
func (p Program) Line(i int) string {
	ins := p[i]
	f := form{"unimp", fmt.Sprintf("0x%x", ins.Op)}
	if known(ins.Op) {
		f = forms[ins.Op]
	}
	line := fmt.Sprintf("(%03d) %-8s ", i, f.name)
	if isBranch(ins.Op) {
		return fmt.Sprintf("%s%-16s jt %d\tjf %d", line, f.print(ins, i), i+1+int(ins.Jt), i+1+int(ins.Jf))
	}
	return line + f.print(ins, i)
}

// print writes the operand of instruction i.
func (f form) print(ins xbpf.RawInstruction, i int) string {
	name, named := ancillaryNames[ins.K]
	switch {
	case isAbs(ins.Op) && named:
		return "[" + name + "]"
	case ins.Op == opJa:
		return strconv.Itoa(int(int32(uint32(i) + 1 + ins.K)))
	case strings.Contains(f.operand, "%x"):
		return fmt.Sprintf(f.operand, ins.K)
	case strings.Contains(f.operand, "%d"):
		return fmt.Sprintf(f.operand, int32(ins.K))
	default:
		return f.operand
	}
}

// C is p as tcpdump -dd prints it: lines of a C array of struct bpf_insn.
func (p Program) C() string {
	var b strings.Builder
	for _, ins := range p {
		fmt.Fprintf(&b, "{ 0x%x, %d, %d, 0x%08x },\n", ins.Op, ins.Jt, ins.Jf, ins.K)
	}
	return b.String()
}

// Decimal is p as tcpdump -ddd prints it: the number of instructions, then one
// a line.
func (p Program) Decimal() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", len(p))
	for _, ins := range p {
		fmt.Fprintf(&b, "%d %d %d %d\n", ins.Op, ins.Jt, ins.Jf, ins.K)
	}
	return b.String()
}

// maxParsed is the length of the longest program that can be told to a kernel:
// the count in struct sock_fprog has 16 bits.
const maxParsed = 65535

// ParseProgram reads what tcpdump -d, -dd or -ddd prints; it knows the form by
// its first character. The program need not be valid for any system.
//
// No text is not an empty program: a file that was lost must not mean "keep
// everything". The empty program is written "0", as tcpdump -ddd would.
func ParseProgram(text string) (Program, error) {
	s := scanner{announced: -1}
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if err := s.scan(line); err != nil {
			return nil, fmt.Errorf("line %d: %.60q: %w", number, line, err)
		}
	}
	switch {
	case s.parse == nil:
		return nil, errors.New("no program in the text: want the output of tcpdump -d, -dd or -ddd")
	case s.announced >= 0 && s.announced != len(s.program):
		return nil, fmt.Errorf("the program ends after %d of %d instructions", len(s.program), s.announced)
	}
	return s.program, nil
}

// A scanner is a program being read.
type scanner struct {
	parse     func(line string, i int) (xbpf.RawInstruction, error)
	announced int // number of instructions, in the form -ddd; else -1
	program   Program
}

func (s *scanner) scan(line string) error {
	if s.parse == nil {
		switch c := line[0]; {
		case c == '(':
			s.parse = parseImage
		case c == '{':
			s.parse = parseC
		case '0' <= c && c <= '9':
			s.parse = parseDecimal
			return s.announce(line)
		default:
			return errors.New("not a line of tcpdump -d, -dd or -ddd")
		}
	}
	switch {
	case len(s.program) == s.announced:
		return fmt.Errorf("the program should end before this, after %d instructions", s.announced)
	case len(s.program) == maxParsed:
		return fmt.Errorf("a program has at most %d instructions", maxParsed)
	}
	ins, err := s.parse(line, len(s.program))
	s.program = append(s.program, ins)
	return err
}

func (s *scanner) announce(line string) error {
	n, err := strconv.ParseUint(line, 10, 64)
	switch {
	case err != nil:
		return errors.New("want the number of instructions, alone on the line")
	case n > maxParsed:
		return fmt.Errorf("a program has at most %d instructions", maxParsed)
	}
	s.announced = int(n)
	return nil
}

// parseDecimal reads a line of -ddd.
func parseDecimal(line string, _ int) (xbpf.RawInstruction, error) {
	return parseNumbers(strings.Fields(line), 10)
}

// parseC reads a line of -dd.
func parseC(line string, _ int) (xbpf.RawInstruction, error) {
	body, open := strings.CutPrefix(line, "{")
	body, closed := strings.CutSuffix(strings.TrimSuffix(body, ","), "}")
	if !open || !closed {
		return xbpf.RawInstruction{}, errors.New("want { code, jt, jf, k },")
	}
	return parseNumbers(strings.Split(body, ","), 0)
}

func parseNumbers(fields []string, base int) (ins xbpf.RawInstruction, err error) {
	if len(fields) != 4 {
		return ins, fmt.Errorf("want four numbers (code, jt, jf, k), not %d", len(fields))
	}
	var n [4]uint64
	for i, bits := range []int{16, 8, 8, 32} {
		field := strings.TrimSpace(fields[i])
		if n[i], err = strconv.ParseUint(field, base, bits); err != nil {
			return ins, fmt.Errorf("bad %s %q: want a number of %d bits", []string{"code", "jt", "jf", "k"}[i], field, bits)
		}
	}
	return xbpf.RawInstruction{Op: uint16(n[0]), Jt: uint8(n[1]), Jf: uint8(n[2]), K: uint32(n[3])}, nil
}

// parseImage reads a line of -d: (NUMBER) NAME OPERAND [jt NUMBER jf NUMBER].
func parseImage(line string, i int) (ins xbpf.RawInstruction, err error) {
	number, body, ok := strings.Cut(strings.TrimPrefix(line, "("), ")")
	if n, err := strconv.Atoi(number); !ok || err != nil || n != i || line[0] != '(' {
		return ins, fmt.Errorf("want instruction (%03d) here", i)
	}
	words := strings.Fields(body)
	targets := words[max(len(words)-4, 0):]
	branch := len(targets) == 4 && targets[0] == "jt" && targets[2] == "jf"
	if branch {
		words = words[:len(words)-4]
	}
	if len(words) == 0 {
		return ins, errors.New("the instruction is missing")
	}
	if ins, err = parseOperand(words[0], strings.Join(words[1:], " "), i); err != nil {
		return ins, err
	}
	if branch != isBranch(ins.Op) {
		return ins, errors.New("jt and jf belong to conditional jumps, and to all of them")
	}
	if branch {
		ins.Jt, err = parseTarget(targets[1], i)
		if err == nil {
			ins.Jf, err = parseTarget(targets[3], i)
		}
	}
	return ins, err
}

// parseOperand finds the instruction that -d writes so as number i.
func parseOperand(name, operand string, i int) (ins xbpf.RawInstruction, err error) {
	err = fmt.Errorf("no such instruction: %q", name)
	for op, f := range forms {
		if name != f.name {
			continue
		}
		if k, ok := f.scan(operand, uint16(op)); ok {
			if op == opJa {
				k -= uint32(i) + 1
			}
			return xbpf.RawInstruction{Op: uint16(op), K: k}, nil
		}
		err = fmt.Errorf("%q cannot have the operand %q", name, operand)
	}
	return ins, err
}

// scan is the inverse of print, but that it gives the target of a ja.
func (f form) scan(operand string, op uint16) (k uint32, ok bool) {
	before, after, hasK := strings.Cut(f.operand, "%")
	if !hasK {
		return 0, operand == f.operand
	}
	verb, after := after[0], after[1:]
	text, ok1 := strings.CutPrefix(operand, before)
	text, ok2 := strings.CutSuffix(text, after)
	if !ok1 || !ok2 {
		return 0, false
	}
	if isAbs(op) {
		for k, name := range ancillaryNames {
			if name == text {
				return k, true
			}
		}
	}
	if verb == 'x' {
		n, err := strconv.ParseUint(text, 16, 32)
		return uint32(n), err == nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return uint32(n), err == nil && n >= -1<<31 && n < 1<<32
}

// parseTarget reads the number of the instruction that number i jumps to.
func parseTarget(text string, i int) (uint8, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n <= i || n > i+1+255 {
		return 0, fmt.Errorf("bad target %q: instruction %d can jump to %d to %d", text, i, i+1, i+1+255)
	}
	return uint8(n - i - 1), nil
}
