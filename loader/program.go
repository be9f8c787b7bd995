package loader

import "jailtap/bpf"

// defaultSnaplen is tcpdump's.
const defaultSnaplen = 262144

// returns is the program that keeps k bytes of every frame.
func returns(k uint32) bpf.Program {
	const retK = 0x06 // BPF_RET | BPF_K of linux/bpf_common.h and net/bpf.h
	return bpf.Program{{Op: retK, K: k}}
}

// userProgram asks for the user's program. Without one it keeps what the
// snaplen says, so that no more than that is buffered.
func (cfg Config) userProgram(lt bpf.LinkType, d bpf.Dialect) (p bpf.Program, err error) {
	if cfg.Filter != nil {
		if p, err = cfg.Filter(lt); err != nil {
			return nil, err
		}
	}
	if len(p) == 0 {
		return returns(uint32(cfg.snaplen())), nil
	}
	return p, p.Validate(d)
}

func (cfg Config) snaplen() int {
	if cfg.Snaplen <= 0 {
		return defaultSnaplen
	}
	return cfg.Snaplen
}
