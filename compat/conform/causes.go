package conform

import "jailtap/bpf"

// A Documented is a documented difference of the dialects.
type Documented struct {
	Cause   bpf.Cause
	What    string
	FreeBSD string
	Linux   string
	Refuses bool // one of the systems refuses the program for it
	Judges  bool // verdicts differ for it
	Advice  string
}

// Causes are all there are, in the order of docs/PARITY.md.
var Causes = []Documented{
	{bpf.CauseNoFilter, "a program without instructions", "no filter: keeps everything", "EINVAL", true, false, "Normalize: one instruction, which keeps everything"},
	{bpf.CauseLength, "more than 512 instructions", "EINVAL (sysctl net.bpf.maxinsns)", "taken, up to 4096", true, false, "a shorter program"},
	{bpf.CauseShift, "lsh or rsh by a constant of 32 or more", "the count modulo 32", "EINVAL", true, false, "Normalize: the count modulo 32"},
	{bpf.CauseMemory, "a cell of M[] that may be read before it is written", "reads 0", "EINVAL", true, false, "Normalize: 0 is written first"},
	{bpf.CauseMetadata, "a load from 0xffe00000 on", "behind the end of every packet", "metadata, or relative to a header; EINVAL where nothing is known", true, true, "Normalize: an offset that no packet has"},
	{bpf.CauseHalfWord, "ldh [k] behind the end of the packet", "received packets: loads 0 and goes on; otherwise rejects", "rejects", false, true, "test the length first, or load bytes"},
	{bpf.CauseIndex, "an indexed load whose X + k may pass 2^31", "received packets: modulo 2^32; otherwise rejects", "modulo 2^32, and metadata from 0xffe00000 on", false, true, "keep X small"},
}

// CauseOf finds the documentation of a cause; of one that has none it is empty.
func CauseOf(c bpf.Cause) Documented {
	for _, d := range Causes {
		if d.Cause == c {
			return d
		}
	}
	return Documented{}
}
