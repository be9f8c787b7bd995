package conform

import (
	"slices"

	xbpf "golang.org/x/net/bpf"

	"jailtap/bpf"
)

// An Attach is a program and who takes it: on FreeBSD as a running kernel
// answered, on Linux as SO_ATTACH_FILTER does. Tests hold bpf and this system's
// kernel to it.
type Attach struct {
	What           string
	Program        bpf.Program
	FreeBSD, Linux bool
}

// Opcodes that the tables use; linux/bpf_common.h, net/bpf.h.
const (
	ldImm, ldW, ldH, ldB, ldLen    = 0x00, 0x20, 0x28, 0x30, 0x80
	ldIndB, ldMem                  = 0x50, 0x60
	ldxImm, ldxMem, ldxMsh, ldxLen = 0x01, 0x61, 0xb1, 0x81
	st, stx                        = 0x02, 0x03
	divK, lshK, rshK, modK, xorK   = 0x34, 0x64, 0x74, 0x94, 0xa4
	divX, lshX                     = 0x3c, 0x6c
	add, ja, jeq, ret, retX, retA  = 0x04, 0x05, 0x15, 0x06, 0x0e, 0x16
)

func in(op uint16, k uint32) xbpf.RawInstruction { return xbpf.RawInstruction{Op: op, K: k} }

// accepting is some instructions and a ret behind them.
func accepting(insns ...xbpf.RawInstruction) bpf.Program { return append(insns, in(ret, 9)) }

// many is so many instructions.
func many(n int) bpf.Program { return slices.Repeat(accepting(), n) }

// Attaches are the cases of validation.
func Attaches() []Attach {
	jump := func(jt, jf uint8) xbpf.RawInstruction { return xbpf.RawInstruction{Op: jeq, Jt: jt, Jf: jf} }
	return []Attach{
		{"0 instructions", nil, true, false},
		{"512 instructions", many(512), true, true},
		{"513 instructions", many(513), false, true},
		{"4096 instructions", many(4096), false, true},
		{"4097 instructions", many(4097), false, false},
		{"`jt` or `jf` to behind the end", accepting(jump(1, 0)), false, false},
		{"`ja` to behind the end", accepting(in(ja, 1)), false, false},
		{"`ja` backward (-1)", accepting(in(ja, 0xffffffff)), false, false},
		{"`ja 0`", accepting(in(ja, 0)), true, true},
		{"the last instruction is no `ret`", bpf.Program{in(ldImm, 0)}, false, false},
		{"`ret x`", bpf.Program{in(retX, 0)}, false, false},
		{"`ret` with `jt` and `jf` set", bpf.Program{{Op: ret, Jt: 7, Jf: 7, K: 1}}, true, true},
		{"an opcode above 0xff", accepting(in(0x100, 0)), false, false},
		{"`ld len`, `ldx len`", accepting(in(ldLen, 0), in(ldxLen, 0)), true, true},
		{"`mod`, `xor`", accepting(in(modK, 3), in(xorK, 3)), true, true},
		{"`div #0`, `mod #0`", accepting(in(divK, 0)), false, false},
		{"`div x`, whatever X is", accepting(in(divX, 0)), true, true},
		{"`lsh #31`", accepting(in(lshK, 31)), true, true},
		{"`lsh #32`, `rsh #32` and more", accepting(in(lshK, 32)), true, false},
		{"M[15]", accepting(in(st, 15)), true, true},
		{"M[16] in `st`, `stx`, `ld`, `ldx`", accepting(in(st, 16)), false, false},
		{"M[] read before it is written", accepting(in(ldMem, 0)), true, false},
		{"the same behind a `ret`", bpf.Program{in(ret, 0), in(ldxMem, 0), in(ret, 0)}, true, false},
		{"`ld [k]`, `ldh [k]`, `ldb [k]` at SKF_AD_OFF (0xfffff000) + a known number", accepting(in(ldW, 0xfffff000)), true, true},
		{"at 0xfffff000 + another", accepting(in(ldW, 0xffffffff)), true, false},
		{"at SKF_NET_OFF (0xfff00000), SKF_LL_OFF (0xffe00000)", accepting(in(ldW, 0xfff00000), in(ldW, 0xffe00000)), true, true},
		{"at 0x7fffffff, 0x80000000", accepting(in(ldW, 0x7fffffff), in(ldW, 0x80000000)), true, true},
	}
}

// Runs are programs whose verdicts show how instructions work.
func Runs() []struct {
	What    string
	Program bpf.Program
} {
	return []struct {
		What    string
		Program bpf.Program
	}{
		{"word past the end", accepting(in(ldW, 5))},
		{"half-word past the end", accepting(in(ldH, 7))},
		{"byte past the end", accepting(in(ldB, 8))},
		{"header length past the end", accepting(in(ldxMsh, 8))},
		{"header length", bpf.Program{in(ldxMsh, 0), in(0x87, 0), in(retA, 0)}},
		{"X + k = 2^32 + 1", bpf.Program{in(ldxImm, 5), in(ldIndB, 0xfffffffc), in(retA, 0)}},
		{"SKF_AD_PKTTYPE, of a packet to this host", bpf.Program{in(ldW, 0xfffff004), in(add, 3), in(retA, 0)}},
		{"the same, as half-word", bpf.Program{in(ldH, 0xfffff004), in(add, 3), in(retA, 0)}},
		{"A, X at the start", bpf.Program{in(0x0c, 0), in(add, 3), in(retA, 0)}},
		{"M[0] at the start", bpf.Program{in(ldMem, 0), in(add, 3), in(retA, 0)}},
		{"division by X = 0", accepting(in(divX, 0))},
		{"constant shift by 33", bpf.Program{in(ldImm, 4), in(rshK, 33), in(retA, 0)}},
		{"shift by X = 33", bpf.Program{in(ldxImm, 33), in(ldImm, 4), in(lshX, 0), in(retA, 0)}},
		{"length on the wire", bpf.Program{in(ldLen, 0), in(retA, 0)}},
	}
}

// Opcodes are those that both systems take.
func Opcodes() []uint16 {
	var known []uint16
	for op := range 1 << 16 {
		// An instruction that is right if its opcode is, and a ret behind it.
		p := bpf.Program{in(st, 1), in(uint16(op), 1), in(ret, 0), in(ret, 0)}
		if p.Validate(bpf.FreeBSD) == nil {
			known = append(known, uint16(op))
		}
	}
	return known
}

var linkTypeText = map[bpf.LinkType]struct{ freebsd, linux, multicast string }{
	bpf.Ethernet:  {"epair, tap, hardware", "AF_PACKET SOCK_RAW on Ethernet and on loopback", "group bit of the destination MAC"},
	bpf.Null:      {"lo0, tun, gif: address family in host byte order; IPv4 is 2, IPv6 28", "files only; libpcap there compiles `ip6` to family 10", "destination address: 224/4, 255.255.255.255, ff00::/8"},
	bpf.Loop:      {"files of OpenBSD: family in network byte order", "files only", "destination address"},
	bpf.Raw:       {"some tunnels", "AF_PACKET on tun and other interfaces without a header", "destination address"},
	bpf.LinuxSLL:  {"files only", "files only (libpcap's older form of -i any)", "packet type"},
	bpf.LinuxSLL2: {"files only", "-i any: SOCK_DGRAM on all interfaces, header put in front", "packet type"},
}

// A section is a table of facts.
type section struct {
	title, text, head string
	rows              [][]string
}

var sections = []section{
	{"VLAN", "Frames with a tag are out of scope unless the scope names their VLAN. The verdict is the same on both, though the kernels show frames differently.\n\n",
		"what | FreeBSD | Linux", [][]string{
			{"received frame with one tag", "in the frame, at offset 12 (put back where hardware strips it: ether_vlan_mtap)", "taken out into metadata before a socket sees it; jailtap asks the metadata, and puts the tag back"},
			{"second tag (QinQ)", "in the frame", "in the frame, behind the one in metadata"},
			{"`ip` on a tagged frame", "does not match", "would match without that question: the frame then looks untagged"},
			{"frame that one sends with a tag", "in the frame", "in the frame, or in metadata if the VLAN device put it there"},
			{"priority tag (VLAN 0)", "a tag", "a tag"},
			{"frame that ends in its tag", "captured", "dropped by the kernel before any socket"},
			{"the length (`len`)", "with the tag", "without; jailtap adds 4"},
		}},
	{"Direction", "", "what | FreeBSD | Linux", [][]string{
		{"received only", "BIOCSDIRECTION BPF_D_IN (0)", "PACKET_IGNORE_OUTGOING, and PACKET_OUTGOING frames left out"},
		{"both (default)", "BPF_D_INOUT (1)", "both; on loopback each packet once, as received"},
		{"sent only", "BPF_D_OUT (2); 3 is EINVAL", "PACKET_OUTGOING frames"},
		{"loopback", "each packet once", "each packet twice on a socket: sent and received"},
		{"what one writes through the same descriptor", "seen under INOUT and OUT", "not seen by the sending socket"},
		{"does a frame tell its direction", "no", "yes (sll_pkttype)"},
	}},
	{"Snaplen and lengths", "", "what | FreeBSD | Linux", [][]string{
		{"the verdict", "bytes to keep; 0 rejects", "the same"},
		{"a first filter of one `ret`", "taken for a snaplen only: the descriptor becomes active later (bpf_check_upgrade)", "a filter as any other"},
		{"caplen", "min(verdict, length)", "the same; of a frame with a tag in metadata jailtap counts the tag"},
		{"frame larger than the buffer", "cut to the buffer, if that is empty", "dropped, and counted"},
		{"record", "bpf_hdr: hdrlen 26 (EN10MB), 28 (NULL); aligned to 8 bytes, the last of a read is not padded", "tpacket3_hdr in a ring of blocks"},
		{"received counter", "packets before the filter (bs_recv)", "packets that the filter let through (tp_packets)"},
		{"what zeroes the counters", "BIOCSETF, BIOCFLUSH, BIOCSETIF; not BIOCSETFNR, BIOCSETWF", "reading them (PACKET_STATISTICS)"},
	}},
	{"Errors of refused attaches", "", "what | FreeBSD | Linux", [][]string{
		{"a program that is not valid", "EINVAL", "EINVAL"},
		{"bad pointer to the instructions", "EINVAL", "EFAULT"},
		{"bad pointer to the program's header", "EFAULT", "EFAULT"},
		{"attach to a locked descriptor or socket", "EPERM, before anything else is looked at", "EPERM"},
		{"an attach that fails", "the old filter stays, nothing is flushed", "the old filter stays"},
		{"no memory for it", "waits for memory", "ENOMEM (net.core.optmem_max)"},
		{"interface that does not exist", "ENXIO (BIOCSETIF); an earlier attachment stays", "ENODEV"},
		{"another interface after the lock", "EPERM", "possible: only the filter is locked"},
		{"read or write before an interface is there", "ENXIO (EINVAL for a read of another size than the buffer's)", "a socket of protocol 0 receives nothing; a write is ENXIO"},
		{"interface goes away", "ENXIO", "ENETDOWN, once"},
		{"write filter that rejects", "EPERM", "does not exist; captive sockets drop at egress: ENOBUFS"},
		{"unknown request", "EINVAL (EPERM once locked)", "ENOPROTOOPT"},
		{"open without privilege", "EACCES (/dev/bpf is 0600)", "EPERM (CAP_NET_RAW)"},
	}},
	{"Requests of bpf(4)", "Locked: whether it still works after BIOCLOCK.\n\n", "bpf(4) | locked | Linux", [][]string{
		{"BIOCSETF", "EPERM", "SO_ATTACH_FILTER, with the queue emptied before"},
		{"BIOCSETFNR", "EPERM", "SO_ATTACH_FILTER"},
		{"BIOCSETWF", "EPERM", "none; jailtap's captive sockets have an egress program"},
		{"BIOCLOCK", "yes", "SO_LOCK_FILTER, which locks the filter only"},
		{"BIOCSETIF", "EPERM", "bind (sll_ifindex)"},
		{"BIOCGETIF", "yes", "getsockname, SIOCGIFNAME"},
		{"BIOCSBLEN", "EPERM", "PACKET_RX_RING, SO_RCVBUF"},
		{"BIOCGBLEN", "yes", "SO_RCVBUF"},
		{"BIOCGDLT, BIOCGDLTLIST", "yes", "SIOCGIFHWADDR (ARPHRD_ type)"},
		{"BIOCSDLT", "EPERM", "SOCK_RAW or SOCK_DGRAM at creation"},
		{"BIOCPROMISC", "EPERM", "PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC"},
		{"BIOCFLUSH", "yes", "read until empty"},
		{"BIOCGSTATS", "yes", "PACKET_STATISTICS"},
		{"BIOCIMMEDIATE", "yes", "the ring's block timeout (tp_retire_blk_tov)"},
		{"BIOCSRTIMEOUT, BIOCGRTIMEOUT", "yes", "poll, SO_RCVTIMEO"},
		{"BIOCSDIRECTION, BIOCGDIRECTION", "EPERM", "PACKET_IGNORE_OUTGOING, sll_pkttype"},
		{"BIOCSHDRCMPLT", "EPERM", "SOCK_RAW sends headers as they are"},
		{"BIOCGHDRCMPLT", "yes", "none"},
		{"BIOCSTSTAMP", "yes", "PACKET_TIMESTAMP; the ring has nanoseconds"},
		{"BIOCGTSTAMP", "EPERM", "none"},
		{"BIOCFEEDBACK", "yes", "none"},
		{"BIOCVERSION", "yes", "none: the version is 1.1 on both"},
		{"BIOCSRSIG", "EPERM", "F_SETSIG"},
		{"BIOCGRSIG", "yes", "F_GETSIG"},
		{"BIOCGETBUFMODE, BIOCSETBUFMODE, BIOCGETZMAX", "EPERM", "the mapped ring"},
		{"FIONREAD", "yes", "FIONREAD"},
		{"FIONBIO, FIOASYNC, FIOGETOWN", "EPERM; fcntl answers EPERM and sets the flag all the same", "fcntl"},
		{"read, write", "yes", "recv, send"},
	}},
}
