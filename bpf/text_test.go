package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"jailtap/internal/testutil"

	xbpf "golang.org/x/net/bpf"
)

// expressions use between them every opcode that libpcap's compiler emits for
// frames in files.
var expressions = []string{
	"", "ip", "arp", "ip6", "rarp", "tcp", "udp", "icmp", "icmp6", "not ip", "len > 100", "less 64",
	"tcp port 80", "udp port 53", "port 53", "portrange 1000-2000", "src portrange 20-21",
	"host 10.0.0.5", "src host 10.0.0.5", "net 10.0.0.0/8", "ip6 host 2001:db8::5", "ip6 net 2001:db8::/32",
	"host 10.0.0.5 and not port 22", "host 10.0.0.1 or host 10.0.0.2 or host 10.0.0.3",
	"ether host 02:00:00:00:00:01", "ether multicast", "ether broadcast", "ip multicast", "ip6 multicast",
	"vlan", "vlan 7 and ip", "vlan and vlan and tcp", "mpls", "pppoes and ip", "geneve",
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[13] = 18", "ip[0] & 0xf != 5", "ip[6:2] & 0x1fff = 0",
	"ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0", "ip[8] * 3 / 2 % 7 = 1",
	"ip[8] ^ ip[9] | 1 = 3", "ip[ip[0]] = 1", "ip and -ip[8] = -64", "ip[16] >= 224", "len - 14 > ip[2:2]",
	"inbound", "ether proto 0x88cc", "icmp[icmptype] = icmp-echo", "1 << ip[8] = 4",
}

// tcpdump compiles an expression and prints the program.
func tcpdump(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("tcpdump")
	if err != nil {
		testutil.Skip(t, "needs tcpdump")
	}
	cmd := exec.Command(path, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", cmd, err, complaint.String())
	}
	return string(out)
}

func TestProgramsPrintAsTcpdumpPrintsThem(t *testing.T) {
	for _, expr := range expressions {
		image := tcpdump(t, "-y", "EN10MB", "-d", expr)
		for form, print := range map[string]func(Program) string{"-d": Program.Text, "-dd": Program.C, "-ddd": Program.Decimal} {
			text := tcpdump(t, "-y", "EN10MB", form, expr)
			p, err := ParseProgram(text)
			if err != nil {
				t.Errorf("tcpdump %s %q: %v", form, expr, err)
				continue
			}
			if got := print(p); got != text {
				t.Errorf("tcpdump %s %q:\n%swe print:\n%s", form, expr, text, got)
			}
			if got := p.Text(); got != image {
				t.Errorf("tcpdump %s %q is\n%snot\n%s", form, expr, got, image)
			}
		}
	}
}

func TestEveryOpcodePrintsAsInLibpcap(t *testing.T) {
	text, err := os.ReadFile("testdata/bpf_image.txt")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		numbers, image, _ := strings.Cut(line, "\t")
		var i int
		var ins xbpf.RawInstruction
		if _, err := fmt.Sscan(numbers, &i, &ins.Op, &ins.Jt, &ins.Jf, &ins.K); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		p := make(Program, i+1)
		p[i] = ins
		if got := p.Line(i); got != image {
			t.Errorf("%+v is %q, want %q", ins, got, image)
		}
		compared++
	}
	if compared != 372 {
		t.Errorf("compared %d lines, want 372", compared)
	}
}

func TestTheFormsOfAProgramAreToldApart(t *testing.T) {
	want := Program{{Op: opLdH, K: 12}, {Op: opJeq, Jf: 1, K: 0x800}, {Op: opRetK, K: 262144}, {Op: opRetK}}
	for _, text := range []string{
		"(000) ldh      [12]\n(001) jeq      #0x800           jt 2\tjf 3\n(002) ret      #262144\n(003) ret      #0\n",
		"{ 0x28, 0, 0, 0x0000000c },\n{ 0x15, 0, 1, 0x00000800 },\n{ 0x6, 0, 0, 0x00040000 },\n{ 0x6, 0, 0, 0x00000000 },\n",
		"4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n",
		"\r\n  4\r\n40 0 0 12\r\n\r\n21 0 1 2048\r\n6 0 0 262144\r\n6 0 0 0",
		"{40,0,0,12}\n{21,0,1,2048}\n{6,0,0,262144}\n{6,0,0,0}",
	} {
		p, err := ParseProgram(text)
		if err != nil || p.Decimal() != want.Decimal() {
			t.Errorf("%q is %v, %v", text, p, err)
		}
	}
}

func TestTheEmptyProgramIsWrittenAsZero(t *testing.T) {
	if p, err := ParseProgram(Program{}.Decimal()); err != nil || len(p) != 0 {
		t.Errorf("got %v, %v", p, err)
	}
	for _, text := range []string{"", "\n \n"} {
		if p, err := ParseProgram(text); err == nil {
			t.Errorf("%q is the program %v", text, p)
		}
	}
}

func TestTextThatIsNoProgramIsRefusedWithItsLine(t *testing.T) {
	many := strings.Repeat("{ 0x6, 0, 0, 0x0 },\n", 65536)
	for _, c := range []struct{ text, want string }{
		{"tcpdump: no", `line 1: "tcpdump: no": not a line`},
		{"2\n6 0 0 0\n", "ends after 1 of 2"},
		{"1\n6 0 0 0\n6 0 0 1\n", `line 3: "6 0 0 1": the program should end before this, after 1`},
		{"65536\n", "at most 65535"},
		{"99999999999999999999\n", "want the number of instructions"},
		{"1 2\n", "want the number of instructions"},
		{"1\n6 0 0\n", "want four numbers (code, jt, jf, k), not 3"},
		{"1\n6 0 0 4294967296\n", `bad k "4294967296"`},
		{"1\n6 0 256 0\n", `bad jf "256"`},
		{"1\n65536 0 0 0\n", `bad code "65536"`},
		{"1\n6 0 0 -1\n", `bad k "-1"`},
		{"1\n0x6 0 0 0\n", `bad code "0x6"`},
		{many, "line 65536: "},
		{"{ 0x6, 0, 0, 0x0 ", "want { code, jt, jf, k }"},
		{"{ 0x6, 0, 0 },", "not 3"},
		{"{ 0x6, 0, 0, 0x0 },\n(001) ret #0", "line 2: "},
		{"(001) ret #0", "want instruction (000) here"},
		{"(000) ret #0\n(002) ret #0", "line 2: \"(002) ret #0\": want instruction (001) here"},
		{"(000)", "the instruction is missing"},
		{"(000", "want instruction (000)"},
		{"(000) ret #0\n001) ret #0", "want instruction (001)"},
		{"(000) jump #0", `no such instruction: "jump"`},
		{"(000) ldh M[3]", `"ldh" cannot have the operand "M[3]"`},
		{"(000) ld [4294967296]", "cannot have the operand"},
		{"(000) ld [-2147483649]", "cannot have the operand"},
		{"(000) ld [fish]", "cannot have the operand"},
		{"(000) ret #0 jt 1 jf 2", "belong to conditional jumps"},
		{"(000) jeq #0x1", "belong to conditional jumps"},
		{"(000) jeq #0x1 jt 0 jf 2", `bad target "0": instruction 0 can jump to 1 to 256`},
		{"(000) jeq #0x1 jt 1 jf 257", `bad target "257"`},
		{"(000) unimp 0x82", `"unimp" cannot have the operand "0x82"`},
	} {
		p, err := ParseProgram(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %d instructions, error %v, want %q", c.text, len(p), err, c.want)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%.40q: an error of %d bytes", c.text, len(err.Error()))
		}
	}
}
