package ebpf

import (
	"github.com/cilium/ebpf/asm"

	"jailtap/bpf"
)

// EtherTypes that scopes know (IEEE 802 numbers).
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIPv6 = 0x86dd
	etherCTag = 0x8100 // IEEE 802.1Q
	etherSTag = 0x88a8 // IEEE 802.1ad
)

// Packet types (PACKET_* of linux/if_packet.h).
const (
	pktBroadcast = 1
	pktMulticast = 2
)

// Where things are on the stack. The frame's start, up to the end of the IPv4
// header, is copied to the top in one call, so that the IPv4 addresses always
// end there, aligned.
const (
	stackPair4   = -8                  // IPv4 source and destination
	stackTag     = -40                 // a VLAN tag's TCI and the EtherType behind it
	stackPair6   = stackTag - 32       // IPv6 source and destination, or ARP sender and target
	stackKey     = stackPair6 - 4 - 24 // for prefixes: length; the address follows
	stackCounter = -4                  // index of the counters: 0
	ipv4Len      = 20                  // bytes, without options
)

// A family is where the addresses of an IP version are kept.
type family struct {
	hosts, prefixes, maybe string
	flag                   int32  // of prefixes
	few                    string // "": there is no such map
	bytes                  int16  // of an address
	capacity               int
}

// scopeCode writes the test of a scope. It holds to bpf.Scope.Match.
type scopeCode struct {
	code
	v        bpf.LinkType
	s        bpf.Scope
	capacity Capacity

	// direct says that the network header is not where the socket's bytes begin, but
	// where the kernel says: on a socket that its holder may bind to any interface. v
	// is LinuxSLL2 then, as all else is metadata.
	direct *layout
}

// linkLen is the length in bytes of the link-level header, where delivered.
func (g *scopeCode) linkLen() int16 {
	if g.v == bpf.Ethernet {
		return 14
	}
	return 0
}

func (g *scopeCode) knows(lt bpf.LinkType) bool {
	return lt == bpf.Ethernet || lt == bpf.Raw || lt == bpf.LinuxSLL2
}

// start emits what stands before everything: registers, and counters.seen++.
func (c *code) start() {
	c.registers()
	c.count(0)
}

// registers emits what the rest counts on: regCtx and regCounters.
func (c *code) registers() {
	c.emit(
		asm.Mov.Reg(regCtx, asm.R1),
		asm.StoreImm(asm.RFP, stackCounter, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackCounter),
		asm.LoadMapPtr(asm.R1, 0).WithReference(Counts),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "counted"), // the verifier cannot know that index 0 exists
		asm.Return(),
	)
	c.label("counted")
	c.emit(asm.Mov.Reg(regCounters, asm.R0))
}

// count emits counters[i]++. Programs on packets of one CPU do not interrupt
// each other.
func (c *code) count(i int16) {
	c.emit(
		asm.LoadMem(asm.R1, regCounters, 8*i, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(regCounters, 8*i, asm.R1, asm.DWord),
	)
}

// userCounted emits the user's program, with what is to be counted of it.
func (c *code) userCounted(p bpf.Program) error {
	c.count(1)
	return c.userThenCounted(p)
}

// userThenCounted counts what the program accepts.
func (c *code) userThenCounted(p bpf.Program) error {
	if err := c.user(p, asm.Ja.Label("verdict")); err != nil {
		return err
	}
	c.label("verdict")
	c.emit(asm.JEq.Imm32(asm.R0, 0, "rejected"))
	c.count(2)
	c.label("rejected")
	c.emit(asm.Return())
	return nil
}

// scope emits the test. Frames in scope go on behind it.
func (g *scopeCode) scope() {
	g.protocol()
	if g.s.VLANs.None() {
		g.untaggedOnly()
	} else {
		g.tags()
	}
	full := g.s.Policy == bpf.Full
	g.emit(asm.JEq.Imm32(regProto, etherIPv4, "ipv4"))
	if full {
		g.emit(asm.JEq.Imm32(regProto, etherIPv6, "ipv6"))
	}
	if full && g.v != bpf.Raw {
		g.emit(
			asm.JEq.Imm32(regProto, etherARP, "arp"),
			asm.JEq.Imm32(regProto, etherRARP, "arp"),
		)
	}
	g.label("out")
	g.verdict(0)

	v4 := family{Hosts4, Prefixes4, Maybe4, FlagPrefixes4, Few4, 4, g.capacity.IPv4}
	v6 := family{Hosts6, Prefixes6, Maybe6, FlagPrefixes6, "", 16, g.capacity.IPv6}
	g.ipv4(v4)
	if full {
		g.ipv6(v6)
	}
	if full && g.v != bpf.Raw {
		v4.few = "" // there are few of these frames
		g.arp(v4)
	}
	if !g.s.VLANs.None() { // addresses behind a tag may have taken the place of the frame's
		g.copied = 0
	}
	g.label("in")
}

// protocol emits regProto = EtherType of the frame. On Ethernet the frame's
// own counts, as skb->protocol of frames sent through a packet socket is what
// their sender says.
func (g *scopeCode) protocol() {
	if g.v == bpf.LinuxSLL2 { // a cooked frame's start is not copied
		g.loadNet16(regProto, regCtx, skbProtocol, asm.Word)
		return
	}
	g.copied = g.linkLen() + ipv4Len
	frame := g.stackFrame()
	g.load(asm.Mov.Imm(asm.R2, 0), frame, g.copied)
	if g.v == bpf.Ethernet {
		g.loadNet16(regProto, asm.RFP, frame+12, asm.Half)
		return
	}
	g.emit( // the IP version is all there is
		asm.LoadMem(asm.R1, asm.RFP, frame, asm.Byte),
		asm.RSh.Imm32(asm.R1, 4),
		asm.Mov.Imm32(regProto, etherIPv4),
		asm.JEq.Imm32(asm.R1, 4, "version"),
		asm.Mov.Imm32(regProto, etherIPv6),
		asm.JNE.Imm32(asm.R1, 6, "out"),
	)
	g.label("version")
}

// load emits: copy n bytes of the frame, from the offset that r2 sets, to the
// stack; goto out if the frame ends before.
func (g *scopeCode) load(r2 asm.Instruction, to, n int16) {
	g.emit(
		asm.Mov.Reg(asm.R1, regCtx),
		r2)
	g.callLoad(to, n)
}

// loadNet is load, from an offset behind the EtherType.
func (g *scopeCode) loadNet(off, to, n int16) {
	if g.direct != nil { // and no tag in the frame
		g.direct.load(&g.code, off, to, n)
		return
	}
	if g.s.VLANs.None() {
		g.load(asm.Mov.Imm(asm.R2, int32(g.linkLen()+off)), to, n)
		return
	}
	g.emit(
		asm.Mov.Reg(asm.R1, regCtx),
		asm.Mov.Reg(asm.R2, regNet),
		asm.Add.Imm(asm.R2, int32(off)))
	g.callLoad(to, n)
}

func (g *scopeCode) callLoad(to, n int16) {
	g.emit(
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, int32(to)),
		asm.Mov.Imm(asm.R4, int32(n)))
	g.emit(
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"))
}

// untaggedOnly emits: if (skb->vlan_present) goto out. A tag in the frame is an
// EtherType that is not in scope.
func (g *scopeCode) untaggedOnly() {
	g.emit(
		asm.LoadMem(asm.R1, regCtx, skbVlanPresent, asm.Word),
		asm.JNE.Imm32(asm.R1, 0, "out"))
}

// tags emits the test of up to two VLAN tags, the first of which may be in
// metadata, and regProto and regNet of what is behind them.
func (g *scopeCode) tags() {
	g.emit(
		asm.Mov.Imm(regNet, int32(g.linkLen())),
		asm.LoadMem(asm.R1, regCtx, skbVlanPresent, asm.Word),
		asm.JEq.Imm32(asm.R1, 0, "no tag yet"))
	g.loadNet16(asm.R1, regCtx, skbVlanProto, asm.Word)
	g.emit(
		asm.JEq.Imm32(asm.R1, etherCTag, "tag in metadata"),
		asm.JNE.Imm32(asm.R1, etherSTag, "out"))
	g.label("tag in metadata")
	g.emit(asm.LoadMem(asm.R1, regCtx, skbVlanTCI, asm.Word))
	g.vlan()
	g.emit(asm.Ja.Label("one tag"))
	g.label("no tag yet")
	if g.v == bpf.Ethernet { // where it is in cooked frames is not known
		g.tagInFrame()
	}
	g.label("one tag")
	if g.v == bpf.Ethernet { // where it is in cooked frames is not known
		g.tagInFrame()
	}
	g.label("tags done")
}

// tagInFrame emits the test of the VLAN tag that comes next, if one does.
func (g *scopeCode) tagInFrame() {
	tag := g.newLabel()
	g.emit(
		asm.JEq.Imm32(regProto, etherCTag, tag),
		asm.JNE.Imm32(regProto, etherSTag, "tags done"))
	g.label(tag)
	g.loadNet(0, stackTag, 4)
	g.emit(asm.Add.Imm(regNet, 4))
	g.loadNet16(regProto, asm.RFP, stackTag+2, asm.Half)
	g.loadNet16(asm.R1, asm.RFP, stackTag, asm.Half)
	g.vlan()
}

// vlan emits: goto out unless the TCI in R1 is of a VLAN in scope.
func (g *scopeCode) vlan() {
	if g.s.VLANs.Any {
		return
	}
	g.emit(
		asm.And.Imm32(asm.R1, 0xfff),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 3),
		asm.LoadMapValue(asm.R3, 0, 0).WithReference(vlanIDs),
		asm.Add.Reg(asm.R3, asm.R2),
		asm.LoadMem(asm.R2, asm.R3, 0, asm.Byte),
		asm.And.Imm(asm.R1, 7),
		asm.RSh.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, 1),
		asm.JEq.Imm(asm.R2, 0, "out"))
}

// ipv4 emits: host J or multicast or broadcast.
func (g *scopeCode) ipv4(v4 family) {
	const src = 12 // offset in bytes into the IPv4 header; the destination follows
	g.label("ipv4")
	switch {
	case g.v == bpf.LinuxSLL2:
		g.loadNet(src, stackPair4, 8)
	case !g.s.VLANs.None(): // what protocol has loaded is the addresses if there was no tag
		g.emit(asm.JEq.Imm32(regNet, int32(g.linkLen()), "addresses"))
		g.loadNet(src, stackPair4, 8)
		g.label("addresses")
	}
	g.pair(v4, stackPair4)
	g.group(func() {
		g.emit(
			asm.LoadMem(asm.R1, asm.RFP, stackPair4+4, asm.Byte),
			asm.And.Imm32(asm.R1, 0xf0),
			asm.JEq.Imm32(asm.R1, 0xe0, "in"), // 224.0.0.0/4
			asm.LoadMem(asm.R1, asm.RFP, stackPair4+4, asm.Word),
			asm.JEq.Imm32(asm.R1, -1, "in")) // 255.255.255.255
	})
}

// ipv6 emits: host J or multicast.
func (g *scopeCode) ipv6(v6 family) {
	g.label("ipv6")
	g.loadNet(8, stackPair6, 32)
	g.pair(v6, stackPair6)
	g.group(func() {
		g.emit(
			asm.LoadMem(asm.R1, asm.RFP, stackPair6+16, asm.Byte),
			asm.JEq.Imm32(asm.R1, 0xff, "in")) // ff00::/8
	})
}

// arp emits: host J or broadcast, for the protocol addresses of sender and
// target (RFC 826, IPv4 over Ethernet).
func (g *scopeCode) arp(v4 family) {
	g.label("arp")
	g.loadNet(14, stackPair6, 4)
	g.loadNet(24, stackPair6+4, 4)
	g.pair(v4, stackPair6)
	if g.v == bpf.LinuxSLL2 {
		g.emit(
			asm.LoadMem(asm.R1, regCtx, skbPktType, asm.Word),
			asm.JEq.Imm32(asm.R1, pktBroadcast, "in"))
	} else {
		frame := g.stackFrame() // begins with the destination, which is aligned to 2 bytes
		g.emit(
			asm.LoadMem(asm.R1, asm.RFP, frame, asm.Half),
			asm.LoadMem(asm.R2, asm.RFP, frame+2, asm.Half),
			asm.And.Reg32(asm.R1, asm.R2),
			asm.LoadMem(asm.R2, asm.RFP, frame+4, asm.Half),
			asm.And.Reg32(asm.R1, asm.R2),
			asm.JEq.Imm32(asm.R1, 0xffff, "in"))
	}
	g.emit(asm.Ja.Label("out"))
}

// group emits: goto in if the frame is for many, by the link level where it
// has one, by the network level otherwise; goto out if not.
func (g *scopeCode) group(network func()) {
	switch {
	case g.s.Policy == bpf.ClassicHost:
	case g.v == bpf.Ethernet: // the group bit; broadcast has it too
		g.emit(
			asm.LoadMem(asm.R1, asm.RFP, g.stackFrame(), asm.Byte),
			asm.JSet.Imm32(asm.R1, 1, "in"))
	case g.v == bpf.LinuxSLL2:
		g.emit(
			asm.LoadMem(asm.R1, regCtx, skbPktType, asm.Word),
			asm.JEq.Imm32(asm.R1, pktBroadcast, "in"),
			asm.JEq.Imm32(asm.R1, pktMulticast, "in"))
	default:
		network()
	}
	g.emit(asm.Ja.Label("out"))
}

// pair emits: goto in if one of the two addresses at at is in the scope.
func (g *scopeCode) pair(f family, at int16) {
	prefixes, none := g.newLabel(), g.newLabel()
	if f.few != "" {
		g.fewHosts(f, at, prefixes)
	}
	g.host(f, at)
	g.host(f, at+f.bytes)
	g.label(prefixes)
	g.ifFlag(f.flag, none)
	g.prefix(f, at)
	g.prefix(f, at+f.bytes)
	g.label(none)
}

// ifFlag emits: goto no unless the flag is set.
func (g *scopeCode) ifFlag(flag int32, no string) {
	g.emit(
		asm.LoadMapValue(asm.R1, 0, 0).WithReference(Flags),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.And.Imm32(asm.R1, flag),
		asm.JEq.Imm32(asm.R1, 0, no))
}

// fewHosts emits, if there are few hosts: goto in if one of the two IPv4 addresses
// at at is one of them; goto done.
func (g *scopeCode) fewHosts(f family, at int16, done string) {
	many := g.newLabel()
	g.ifFlag(FlagFew4, many)
	g.emit(
		asm.LoadMapValue(asm.R1, 0, 0).WithReference(f.few),
		asm.LoadMem(asm.R2, asm.RFP, at, asm.Word),
		asm.LoadMem(asm.R3, asm.RFP, at+f.bytes, asm.Word))
	for i := range int16(few) {
		g.emit(
			asm.LoadMem(asm.R4, asm.R1, 4*i, asm.Word),
			asm.JEq.Reg32(asm.R4, asm.R2, "in"),
			asm.JEq.Reg32(asm.R4, asm.R3, "in"))
	}
	g.emit(asm.Ja.Label(done))
	g.label(many)
}

// host emits: goto in if the address at at is one of the hosts. The filter,
// which pass has filled, is asked first.
func (g *scopeCode) host(f family, at int16) {
	absent := g.newLabel()
	g.hash(f, at)
	g.emit(
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 12),
		asm.LSh.Imm(asm.R2, 3), // offset in bytes of the word
		asm.LoadMapValue(asm.R3, 0, 0).WithReference(f.maybe),
		asm.Add.Reg(asm.R3, asm.R2),
		asm.LoadMem(asm.R2, asm.R3, 0, asm.DWord),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.RSh.Reg(asm.R2, asm.R1), // by the low 6 bits of R1
		asm.RSh.Imm(asm.R1, 6),
		asm.RSh.Reg(asm.R3, asm.R1),
		asm.And.Reg(asm.R2, asm.R3),
		asm.And.Imm32(asm.R2, 1),
		asm.JEq.Imm32(asm.R2, 0, absent))
	g.lookup(f.hosts, at)
	g.label(absent)
}

// hash emits R1 = word << 12 | second bit << 6 | first bit, of the address at at.
func (g *scopeCode) hash(f family, at int16) {
	g.emit(asm.LoadImm(asm.R2, maybeHash-1<<64, asm.DWord))
	if f.bytes == 4 {
		g.emit(asm.LoadMem(asm.R1, asm.RFP, at, asm.Word))
	} else {
		g.emit(
			asm.LoadMem(asm.R1, asm.RFP, at, asm.DWord),
			asm.Mul.Reg(asm.R1, asm.R2),
			asm.LoadMem(asm.R3, asm.RFP, at+8, asm.DWord),
			asm.Xor.Reg(asm.R1, asm.R3),
			asm.Mov.Reg(asm.R3, asm.R1),
			asm.RSh.Imm(asm.R3, 32),
			asm.Xor.Reg(asm.R1, asm.R3))
	}
	g.emit(
		asm.Mul.Reg(asm.R1, asm.R2),
		asm.RSh.Imm(asm.R1, int32(64-maybeWords(f.capacity)-12)))
}

// prefix emits: goto in if the address at at is in one of the prefixes.
func (g *scopeCode) prefix(f family, at int16) {
	g.emit(asm.StoreImm(asm.RFP, stackKey, int64(8*f.bytes), asm.Word))
	for i := int16(0); i < f.bytes; i += 4 {
		g.emit(
			asm.LoadMem(asm.R1, asm.RFP, at+i, asm.Word),
			asm.StoreMem(asm.RFP, stackKey+4+i, asm.R1, asm.Word))
	}
	g.lookup(f.prefixes, stackKey)
}

// lookup emits: goto in if the map has the key on the stack at key.
func (g *scopeCode) lookup(name string, key int16) {
	g.emit(
		asm.LoadMapPtr(asm.R1, 0).WithReference(name),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(key)),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "in"))
}
